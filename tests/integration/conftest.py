"""Integration tests need a running worker unless they start their own."""

from collections.abc import Iterator

import pytest
import redis

from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.faults.scenes import Fleet
from tests.integration.routing_fleet import RoutingFleet
from workers.ledger import Ledger


@pytest.fixture
def running_worker(worker: ChildProcess) -> ChildProcess:
    """The session's worker; the test fails if the one before ended it."""
    assert worker.returncode is None, worker.tail(60)
    return worker


@pytest.fixture(scope="module")
def valkey(stack: Stack) -> Iterator[Valkey]:
    """One for the tests of one module alone."""
    one = Valkey(stack.folder("valkey"))
    yield one
    one.stop()


@pytest.fixture
def server(valkey: Valkey) -> Iterator[redis.Redis]:
    """The module's Valkey itself, with nothing in it."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def ledger(valkey: Valkey, server: redis.Redis) -> Iterator[Ledger]:  # noqa: ARG001
    """The ledger on it."""
    with Ledger(valkey.url) as one:
        yield one


@pytest.fixture(scope="module")
def routing(stack: Stack) -> Iterator[RoutingFleet]:
    """Two servers that differ and a worker each, for the tests of one module."""
    with Fleet(stack) as fleet:
        yield RoutingFleet(fleet)
