"""Celery's events over RabbitMQ, which hold up nobody."""

from typing import Any

from celery.events.dispatcher import EventDispatcher


class Dispatcher(EventDispatcher):  # type: ignore[misc]  # celery has no types for it
    """Tells at once, or raises.

    Celery's sign of life is sent by the loop that takes messages, and would be tried again there
    for as long as the broker is away: nobody would learn that it is.
    """

    def send(self, *args: Any, **options: Any) -> Any:
        """Celery's hook: tell of something, once."""
        return super().send(*args, **{**options, "retry": False})
