"""A line of the log, for programs and for people. Whatever is logged, it can be written."""

import json
import logging
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tasks.app import TASK_NAME
from tasks.request import label
from workers.logs import context
from workers.logs.texts import exception_of, message_of, plain_fields

# What a terminal takes for more than text.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_RESET = "\033[0m"
_COLORS = {"DEBUG": "\033[34m", "WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[35m"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in UTC, level, logger, message, fields of the line and of its job, exception."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {
            "ts": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": message_of(record),
        }
        fields = plain_fields(job_fields(record)) | plain_fields(getattr(record, "fields", {}))
        exception = exception_of(record)
        told = {"exception": exception} if exception else {}
        # In this order, and no field in the place of another one.
        return json.dumps(head | told | fields | head | told)


class ConsoleFormatter(logging.Formatter):
    """Time, level, which job and from its second on which attempt, then the message."""

    def __init__(self, *, use_color: bool) -> None:
        """Say whether lines that are no mere information have colours."""
        super().__init__()
        self._use_color = use_color

    def format(self, record: logging.LogRecord) -> str:
        """A line, and more if it has an exception."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        head = f"[{moment},{int(record.msecs):03d}: {record.levelname}] {_of_job(record)}"
        told = [message_of(record), exception_of(record) or ""]
        # What comes from outside begins no line.
        text = head + "\n".join(filter(None, told)).replace("\n", "\n    ")
        text = _CONTROL.sub("?", text)
        color = _COLORS.get(record.levelname) if self._use_color else None
        return f"{color}{text}{_RESET}" if color else text


def job_fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """What is known of the job of a line: by its thread, or by Celery, which says it in its own."""
    known = context.fields()
    if "job_id" in known:
        return known
    match getattr(record, "data", None):
        case {"name": name, "id": str(job_id)} if name == TASK_NAME:
            return {**known, "job_id": job_id}
    return known


def repeats_the_story(record: logging.LogRecord) -> bool:
    """Whether a line of Celery's says of a job what its story says."""
    data = getattr(record, "data", None)
    is_of_job = isinstance(data, Mapping) and data.get("name") == TASK_NAME
    return is_of_job and record.levelno <= logging.INFO


def _of_job(record: logging.LogRecord) -> str:
    fields = job_fields(record)
    if "job_id" not in fields:
        return ""
    attempt = fields.get("attempt", 1)
    again = f" #{attempt}" if attempt != 1 else ""
    return f"job {label(str(fields['job_id']))}{again}: "
