"""What a filter of one family of formats is."""

from collections.abc import Callable, Generator

from workers.outputs.source import Source

Passing = Generator[bytes, None, bool]
"""A file's bytes as they are to be stored; in the end whether its metadata is out.

Of a file that cannot be read any further the rest is left in the source.
"""

Filter = Callable[[Source], Passing]
