"""How much an export may become: subgraphs and replacements multiply what a file has."""

from tasks.errors import InvalidWorkflowError

# As many characters as a file may have bytes.
_MOST_CHARACTERS = 32 * 2**20
# Of what is no text.
_PLAIN = 8


class Allowance:
    """What is left for one export, in characters."""

    def __init__(self) -> None:
        self._left = _MOST_CHARACTERS

    def take(self, value: object) -> None:
        """Take off about as much as a value is as JSON.

        Raises:
            InvalidWorkflowError: there is not so much left.
        """
        # Not by recursion: how deep it is nested is up to the file.
        waiting = [value]
        while waiting and self._left >= 0:
            match waiting.pop():
                case str() as text:
                    self._left -= len(text)
                case dict() as items:
                    waiting += [*items, *items.values()]
                case list() as items:
                    waiting += items
            self._left -= _PLAIN
        if self._left < 0:
            raise InvalidWorkflowError(
                f"the export stands for more than {_MOST_CHARACTERS:,} characters, with its "
                "subgraphs and replacements expanded"
            )
