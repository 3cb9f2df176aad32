"""Our format on Celery's handlers: its level, its file and what it redirects stay as they are."""

import logging
import threading
from typing import Any, Literal

from billiard.util import get_logger as multiprocessing_logger
from celery import signals

from workers.logs.formats import ConsoleFormatter, JsonFormatter, repeats_the_story

logger = logging.getLogger(__name__)

LogFormat = Literal["console", "json"]

# Who says of each job that it came, and how it ended.
_REPEATING = ("celery.worker.strategy", "celery.app.trace")


def write_logs_as(log_format: LogFormat) -> None:
    """Have all lines written in this format once Celery has made its handlers."""

    def take_over(logger: logging.Logger, colorize: bool = False, **_: Any) -> None:
        formatter = _formatter(log_format, use_color=bool(colorize))
        for one in (logger, multiprocessing_logger()):
            for handler in one.handlers:
                handler.setFormatter(formatter)

    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(take_over, weak=False, dispatch_uid="comfyfleet-log-format")
    threading.excepthook = _log_uncaught
    for name in _REPEATING:
        logging.getLogger(name).addFilter(_is_new)


def _log_uncaught(what: threading.ExceptHookArgs) -> None:
    if what.exc_type is SystemExit:
        # As Python's own has it: the thread was to end.
        return
    # In one piece: what Python prints of it would be many lines.
    name = what.thread.name if what.thread is not None else "?"
    value = what.exc_value or what.exc_type()
    told = (what.exc_type, value, what.exc_traceback)
    logger.error("thread %s ended with an exception", name, exc_info=told)


def _is_new(record: logging.LogRecord) -> bool:
    return not repeats_the_story(record)


def _formatter(log_format: LogFormat, *, use_color: bool) -> logging.Formatter:
    return JsonFormatter() if log_format == "json" else ConsoleFormatter(use_color=use_color)
