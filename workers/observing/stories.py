"""Lines of stories on their way to whoever keeps them."""

import threading
from collections import deque

from workers.observing.events import Event
from workers.observing.story import Line, line_of

# Lines that wait while nobody takes them; of more the oldest are lost.
MOST_WAITING = 10_000


class StoryLines:
    """Collects the lines that tell of what is observed: no job waits for them. Thread-safe."""

    def __init__(self, worker: str) -> None:
        """Take this worker's name."""
        self._worker = worker
        self._waiting: deque[Line] = deque(maxlen=MOST_WAITING)
        self.come = threading.Event()
        """Set as soon as there are lines to take."""

    def __call__(self, event: Event) -> None:
        """Note the line that tells of an event."""
        line = line_of(event, self._worker)
        if line is not None:
            self._waiting.append(line)
            self.come.set()

    def take(self, most: int) -> list[Line]:
        """The oldest lines, so many at most; they do not wait any more."""
        self.come.clear()
        taken: list[Line] = []
        while len(taken) < most:
            try:
                taken.append(self._waiting.popleft())
            except IndexError:
                break
        if self._waiting:
            self.come.set()
        return taken
