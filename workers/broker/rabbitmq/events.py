"""Events of a worker, for those who watch it, where the broker is RabbitMQ."""

from typing import Any

from celery.events.dispatcher import EventDispatcher


class Dispatcher(EventDispatcher):  # type: ignore[misc]  # celery has no types for it
    """Celery's dispatcher, which does not hold up the loop that takes messages.

    Celery would have that loop send a sign of life again and again while RabbitMQ is away: it would
    not see that it is, say so, and connect anew.
    """

    def send(self, *args: Any, **options: Any) -> Any:
        """Celery's hook: send an event once; what cannot be sent is kept for later."""
        return super().send(*args, **{**options, "retry": False})
