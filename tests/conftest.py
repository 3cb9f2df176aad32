"""What tests of every tier share."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from settings import load
from settings.model import Settings
from tests.forking import Forks
from tests.stack import Client

# With what the session's worker signs: "secret" four times.
WEBHOOK_SECRET = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"

_ROOT = Path(__file__).parents[1]

_OURS = {field.alias for field in Settings.model_fields.values()}

# A developer's own environment must not decide about a test.
_FOREIGN = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
for variable in list(os.environ):
    if variable in _OURS or variable.startswith(_FOREIGN):
        del os.environ[variable]


@pytest.fixture(autouse=True)
def _settings_are_read_anew() -> None:
    load.cache_clear()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Valkey, SeaweedFS and one stand-in ComfyUI, as long as the suite runs."""
    with Forks() as forks, Stack(start=forks) as running:
        yield running


@pytest.fixture(scope="session")
def worker(stack: Stack) -> ChildProcess:
    """A worker on the stack's stand-in, started as users do; the only process to be traced, too."""
    return stack.worker(
        settings={
            "COVERAGE_PROCESS_START": str(_ROOT / "pyproject.toml"),
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
            "WEBHOOK_ALLOW_HOSTS": "127.0.0.1",
        }
    )


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[Client]:
    """A bare producer."""
    one = Client(stack.environment())
    yield one
    one.close()


@pytest.fixture
def seed() -> int:
    """A new one for each test: an identical workflow would be answered from the cache."""
    return next(_SEEDS)


_SEEDS = count(1)
