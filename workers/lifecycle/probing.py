"""A short look at several servers at once."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from tasks.errors import JobError
from workers.comfyui import ComfyUI

# Seconds for all answers together.
PROBE_SECONDS = 2.0


def answering(urls: Sequence[str], client: Callable[[str], ComfyUI]) -> frozenset[str]:
    """Which of these servers answer within a moment.

    Args:
        urls: of the servers.
        client: makes a client of one.
    """
    answered: list[str] = []

    def ask(url: str) -> None:
        with suppress(JobError), client(url) as comfyui:
            comfyui.queue()
            answered.append(url)

    # Daemons: a host that says nothing, or has no address yet, holds up nobody.
    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return frozenset(tuple(answered))
