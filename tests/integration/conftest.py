"""Integration tests need a running worker unless they start their own."""

import pytest

from sandbox.processes import ChildProcess


@pytest.fixture
def running_worker(worker: ChildProcess) -> ChildProcess:
    """The session's worker; the test fails if the one before ended it."""
    assert worker.returncode is None, worker.tail(60)
    return worker
