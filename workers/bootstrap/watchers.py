"""Those who watch what happens to a worker's jobs, and tell."""

from collections.abc import Iterable
from dataclasses import dataclass

from settings import Settings
from workers.bootstrap.outside import Outside
from workers.bootstrap.taking import Taking
from workers.ledger import Ledger
from workers.lifecycle.presence import Presence
from workers.lifecycle.telling import Telling
from workers.logs.story import tell as tell_story
from workers.observing import Observe, Observers
from workers.observing.stories import StoryLines
from workers.tracing import Traces, traces


@dataclass(frozen=True)
class Watchers:
    """What is told of a worker's jobs.

    Attributes:
        observe: takes what happens.
        traces: makes traces of it.
        telling: tells the fleet.
    """

    observe: Observe
    traces: Traces
    telling: Telling


def watchers(
    settings: Settings, worker: str, outside: Outside, taking: Taking, others: Iterable[Observe]
) -> Watchers:
    """Put them together, and others behind them, for the worker with this name."""
    telemetry, stories = traces(settings, worker), StoryLines(worker)
    presence = Presence(
        taking.keeper,
        (outside.circuit, outside.store_watch),
        id=outside.notifications.client_id,
        worker=worker,
        instance=settings.comfyui_url,
        slots=settings.worker_slots,
        is_leaving=lambda: taking.leaving.begun,
        comfyui_version=lambda: taking.survey.version,
    )
    return Watchers(
        # The first one so that the lines of the logged story name the trace.
        observe=Observers(telemetry.observe, tell_story, stories, presence, *others),
        traces=telemetry,
        telling=Telling(Ledger(settings.ledger_url), presence, stories),
    )
