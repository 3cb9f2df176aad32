"""The page on errors."""

from collections.abc import Iterator
from inspect import getdoc

from reference.tables import table
from tasks import errors
from tasks.errors import CancelledError, JobError, PermanentError, TransientError

_KINDS: dict[type[JobError], str] = {
    TransientError: "Transient: another attempt may succeed, perhaps on another server. A job that "
    "has used up its attempts fails with the last one.",
    PermanentError: "Permanent: the job fails at once, and would anywhere.",
    CancelledError: "Cancelled: somebody asked for the job to end. Celery's state is `REVOKED`.",
}


def errors_page() -> str:
    """Every way in which a job can end without a result."""
    lines = [
        "# Errors",
        "",
        "A job that fails raises one of these where its result is awaited: as a class of",
        "`tasks.errors` for producers who install comfyfleet, under the same name for those who",
        "don't. Its message is one sentence that says what happened.",
    ]
    for kind, meaning in _KINDS.items():
        rows = [(f"`{leaf.__name__}`", getdoc(leaf) or "") for leaf in _leaves(kind)]
        lines += ["", f"## {kind.__name__}", "", meaning, "", *table(("error", "meaning"), rows)]
    return "\n".join([*lines, ""])


def _leaves(kind: type[JobError]) -> Iterator[type[JobError]]:
    for one in vars(errors).values():
        if isinstance(one, type) and issubclass(one, kind) and one is not kind:
            yield one
