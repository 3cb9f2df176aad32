import inspect
import json

import pytest
from celery import Celery

from tasks import errors
from tasks.errors import CancelledError, JobError, PermanentError, TransientError

BRANCHES = {TransientError, PermanentError, CancelledError}
LEAVES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, JobError) and cls is not JobError and cls not in BRANCHES
]


@pytest.mark.parametrize("leaf", LEAVES)
def test_each_leaf_is_exactly_one_of_transient_permanent_cancelled(leaf: type[JobError]) -> None:
    assert len(BRANCHES & set(leaf.__mro__)) == 1
    assert leaf.__doc__


@pytest.mark.parametrize("leaf", LEAVES)
def test_type_and_message_survive_the_result_backend(leaf: type[JobError]) -> None:
    backend = Celery(broker="memory://", backend="cache+memory://").backend
    stored = json.loads(json.dumps(backend.prepare_exception(leaf("node 3: it broke"), "json")))
    read = backend.exception_to_python(stored)
    assert type(read) is leaf
    assert read.message == str(read) == "node 3: it broke"


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert errors.NodeFailedError("node 3\n(a\r\nb):  x").message == "node 3 (a b): x"
    longest = "x" * errors.MOST_CHARACTERS
    assert errors.NodeFailedError(longest).message == longest
    # The mark of the cut is part of the length.
    assert errors.NodeFailedError(longest + "x").message == f"{longest[:-3]}..."
    assert len(errors.NodeFailedError("x" * 1_000_000).message) == errors.MOST_CHARACTERS


def test_without_our_code_the_name_and_the_message_survive() -> None:
    backend = Celery(broker="memory://", backend="cache+memory://").backend
    stored = backend.prepare_exception(errors.NodeFailedError("node 3: it broke"), "json")
    read = backend.exception_to_python({**stored, "exc_module": "not.installed"})
    assert type(read).__name__ == "NodeFailedError"
    assert str(read) == "node 3: it broke"
