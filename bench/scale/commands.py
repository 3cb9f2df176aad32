"""Which commands reach the broker."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import redis

# Ends a listening; nobody else sends it.
_END = "bench-end"


class Commands:
    """How often each command came.

    Attributes:
        sent: by clients.
        in_scripts: run by scripts on the broker itself.
    """

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.in_scripts: Counter[str] = Counter()


@contextmanager
def listening(url: str) -> Iterator[Commands]:
    """Count them while the block runs; complete after it."""
    heard = Commands()
    with (
        redis.Redis.from_url(url) as client,
        redis.Redis.from_url(url) as ender,
        client.monitor() as monitor,
    ):

        def listen() -> None:
            for command in monitor.listen():
                name, _, rest = command["command"].partition(" ")
                if rest == _END:
                    return
                of = heard.in_scripts if command["client_type"] == "lua" else heard.sent
                of[name.upper()] += 1

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            ender.echo(_END)
            thread.join()
    # Those by which it was ended.
    del heard.sent["CLIENT"]
