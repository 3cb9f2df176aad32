"""A job's story at INFO, told from what happens to it: a few lines that say all that matters."""

import logging
from typing import Any

from workers.observing import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobSuppressed,
    JobTaken,
    StageEnded,
)

logger = logging.getLogger(__name__)

_STARTS = {
    "submit": "submits prompt",
    "adopt": "goes on with prompt",
    "collect": "collects prompt",
}


def tell(event: Event) -> None:
    """Log an event, in the words of the story; the thread's context says of which job."""
    match event:
        case JobTaken(is_new=True):
            queued = max(0.0, event.taken_at - event.enqueued_at)
            _say(f"received after {queued:.1f} s in the queue", queued_seconds=round(queued, 3))
        case JobTaken():
            logger.debug("received again")
        case JobSuppressed(reason="held"):
            # Every ten seconds, for as long as somebody has it.
            level = logging.DEBUG if event.redelivered else logging.INFO
            logger.log(level, "came again while somebody has it; looked at later")
        case JobSuppressed():
            logger.info("came again after its end, which is told again")
        case AttemptBegan():
            start = _STARTS[event.start]
            _say(
                f"attempt {event.number} on {event.instance} {start} {event.prompt_id}",
                start=event.start,
            )
        case StageEnded():
            _tell_stage(event)
        case FileStored():
            logger.debug("%s stored in %.2f s", event.key, event.seconds)
        case AttemptEnded(error=error, again_in=seconds) if error and seconds is not None:
            logger.warning(
                "attempt %d failed, again in %.1f s: %s",
                *(event.number, seconds, error),
                extra={
                    "fields": {"error": type(error).__name__, "again_in_seconds": round(seconds, 3)}
                },
            )
        case JobEnded():
            _tell_end(event)


def _tell_stage(event: StageEnded) -> None:
    seconds = round(event.seconds, 3)
    match event.stage:
        case "staging":
            _say(f"the server has the prompt after {seconds:.1f} s", staged_seconds=seconds)
        case "executing":
            _say(f"executed in {seconds:.1f} s", executed_seconds=seconds)
        case "uploading":
            files = f"{event.files} file{'' if event.files == 1 else 's'}"
            _say(
                f"{files} stored {seconds:.1f} s after that",
                files=event.files,
                uploaded_seconds=seconds,
            )
        case "committing":
            logger.debug("committed in %.2f s", seconds)


def _tell_end(event: JobEnded) -> None:
    if event.result is not None:
        timings = event.result.timings.model_dump(exclude={"nodes"})
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in timings.items())
        attempts = len(event.result.attempts)
        times = "" if attempts == 1 else f" at attempt {attempts}"
        _say(f"finished{times} (seconds: {told})", outcome=event.outcome, seconds=timings)
    elif event.error is not None:
        leaf = type(event.error).__name__
        # Somebody wanted that it is cancelled.
        level = logging.INFO if event.outcome == "cancelled" else logging.WARNING
        logger.log(
            level,
            *("%s: %s: %s", event.outcome, leaf, event.error),
            extra={"fields": {"outcome": event.outcome, "error": leaf}},
        )


def _say(message: str, **fields: Any) -> None:
    logger.info("%s", message, extra={"fields": fields})
