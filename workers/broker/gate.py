"""No message is taken from the queue while the worker's ComfyUI server is down, or its bucket."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks


class Gate(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types for it
    """Celery's consumer consumes only while all circuits of its worker are closed.

    They are the attribute `circuits` of the worker (Celery's controller). A reply that was
    under way when the gate shut brings a message that nobody consumes: the transport puts it back.
    """

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Follow the circuits; a consumer has one gate for all its connections."""
        super().__init__(consumer, **options)
        self._circuits = consumer.controller.circuits
        self._connected = False
        # Every change looks at them anew: of those that come together the last one wins.
        for circuit in self._circuits:
            circuit.subscribe(lambda _: consumer.call_soon(self._follow, consumer))

    @property
    def _closed(self) -> bool:
        return all(circuit.closed for circuit in self._circuits)

    def start(self, consumer: Any) -> None:
        """Celery's hook for each new connection, before anything is consumed over it."""
        self._connected = True
        if not self._closed:
            _shut(consumer.task_consumer)

    def stop(self, consumer: Any) -> None:  # noqa: ARG002  # celery's signature
        """Celery's hook for each connection that has ended, and for the worker's end."""
        self._connected = False

    terminate = stop

    def _follow(self, consumer: Any) -> None:
        if not self._connected:
            return
        if self._closed:
            _open(consumer.task_consumer, consumer.app.amqp.queues.consume_from.values())
        else:
            _shut(consumer.task_consumer)


def _shut(tasks: Any) -> None:
    tasks.cancel()
    # Celery consumes from all that are listed when it is connected. Which queues the worker was
    # told to consume from is the app's to know, and does not change.
    tasks.queues = []


def _open(tasks: Any, queues: Any) -> None:
    tasks.queues = [queue(tasks.channel) for queue in queues]
    tasks.consume()
