"""How much a job may make: its files cost the store's owner money."""

from dataclasses import dataclass

from tasks.errors import OutputTooLargeError
from workers.outputs.source import Readable


@dataclass(frozen=True)
class MostOutput:
    """What the operator allows.

    Attributes:
        count: files of a job.
        file_bytes: bytes of each.
    """

    count: int = 10_000
    file_bytes: int = 10 * 1024**3

    def check_count(self, count: int) -> None:
        """Refuse too many files.

        Raises:
            OutputTooLargeError: they are.
        """
        if count > self.count:
            raise OutputTooLargeError(
                f"the job made {count:,} files, at most {self.count:,} are allowed "
                "(OUTPUT_MAX_COUNT)"
            )


class Bounded:
    """A file that is read as long as it is not too large."""

    def __init__(self, stream: Readable, node_id: str, most: MostOutput) -> None:
        """Take the stream of a node's file."""
        self._stream = stream
        self._node_id = node_id
        self._most = most.file_bytes
        self._left = most.file_bytes

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; nothing at the end.

        Raises:
            OutputTooLargeError: there are more than may be.
        """
        part = self._stream.read(size)
        self._left -= len(part)
        if self._left < 0:
            raise OutputTooLargeError(
                f"node {self._node_id} made a file of more than {self._most:,} bytes, which is as "
                "much as is allowed (OUTPUT_MAX_BYTES)"
            )
        return part
