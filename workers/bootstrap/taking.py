"""Which jobs a worker takes, and when it takes none."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from settings import Settings
from workers.bootstrap.outside import Outside
from workers.execution import Keeper
from workers.execution.control import ServerLost, WorkerLeaving
from workers.lifecycle.leaving import Leaving
from workers.lifecycle.moving import Moving
from workers.lifecycle.pinned import Pinned
from workers.routing.pace import Pace
from workers.routing.router import Router
from workers.routing.survey import Survey


@dataclass(frozen=True)
class Taking:
    """What decides about a worker's jobs before they run.

    Attributes:
        takes_jobs: whether it takes any now.
        survey: what its server can do.
        router: which of them are better off elsewhere.
        keeper: has those that were taken.
        leaving: ends the worker.
        moving: has it go to another server, if there is a choice.
    """

    takes_jobs: Callable[[], bool]
    survey: Survey
    router: Router
    keeper: Keeper
    leaving: Leaving
    moving: Moving | None


def taking(
    settings: Settings,
    worker: str,
    outside: Outside,
    *,
    pinned: Pinned | None,
    is_another_free: Callable[[str], bool] | None,
) -> Taking:
    """Put it together for the worker with this name.

    Args:
        settings: of the worker.
        worker: its name.
        outside: what it works with.
        pinned: the lease on its server; without one others may drive it, too.
        is_another_free: whether a server beside the one with this URL can be had.
    """
    circuit, store_watch, place = outside.circuit, outside.store_watch, outside.place.key

    def takes_jobs() -> bool:
        return circuit.closed and store_watch.closed and not leaving.begun

    survey = Survey(
        outside.comfyui,
        outside.servers,
        place,
        worker=worker,
        takes_jobs=takes_jobs,
        answers=lambda: circuit.answers,
    )
    pace = Pace()
    router = Router(
        servers=outside.servers,
        survey=survey,
        pace=pace,
        place=place,
        is_idle=lambda: keeper.is_idle,
        # In RabbitMQ there is no telling how long a job has waited in a lane.
        wait_seconds=0.0 if settings.on_rabbitmq else settings.warm_wait_seconds,
    )
    keeper = Keeper(
        outside.ledger,
        place,
        pace=pace,
        takes_jobs=takes_jobs,
        is_tired=lambda: router.tired,
        server_answers=lambda: circuit.answers,
        stop_prompt=outside.comfyui.try_cancel,
    )
    leaving = Leaving(keeper, settings.shutdown_grace_seconds)

    def begin_anew(closed: bool) -> None:
        keeper.nudge()
        router.forget_loaded()
        if closed:
            # It may be another server now.
            survey.renew()

    def lose_server() -> None:
        # It is another worker's to tell of the server, and there is no time for what runs there.
        survey.stop()
        leaving.begin_anew(ServerLost("another worker drives its server now"), grace_seconds=0.0)

    circuit.subscribe(begin_anew)
    store_watch.subscribe(lambda _: keeper.nudge())
    if pinned is not None:
        pinned.subscribe(lose_server)
    moving = None
    if is_another_free is not None:
        moving = Moving(
            answers=lambda: circuit.answers,
            is_another_free=partial(is_another_free, settings.comfyui_url),
            move=partial(leaving.begin_anew, WorkerLeaving("its server is down")),
        )
    return Taking(takes_jobs, survey, router, keeper, leaving, moving)
