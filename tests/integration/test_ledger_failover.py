"""What a replica makes of leases that it knows of when it becomes the master."""

import time
from collections.abc import Iterator

import pytest
import redis

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.faults.scenes import eventually
from workers.ledger import Claimed, Held, Ledger, Record
from workers.ledger import ledger as module
from workers.ledger.ledger import FAILOVER_GRACE_SECONDS, OURS, RESTART_GRACE_SECONDS

pytestmark = pytest.mark.integration

RECORD = Record(place="gpu", instance="http://gpu:8188", client_id="c", folder="job")


@pytest.fixture
def pair(stack: Stack) -> Iterator[tuple[Valkey, Valkey]]:
    master = Valkey(stack.folder("master"), options=("--repl-diskless-sync-delay", "0"))
    replica = Valkey(stack.folder("replica"), replica_of=master)
    yield master, replica
    replica.stop()
    master.stop()


def test_a_replica_that_becomes_the_master(pair: tuple[Valkey, Valkey]) -> None:
    master, replica = pair
    with Ledger(master.url) as ledger:
        ours = ledger.claim("job", RECORD, "ours")
        assert isinstance(ours, Claimed)
    with redis.Redis.from_url(replica.url, decode_responses=True) as server:
        eventually(lambda: server.exists("comfyfleet:job:job"))
        master.stop()
        server.replicaof("NO", "ONE")
        # As if nobody had been able to renew for long.
        server.hset("comfyfleet:job:job", "until", 0)
        with Ledger(replica.url) as ledger:
            held = ledger.claim("job", RECORD, "theirs")
            assert isinstance(held, Held)
            assert RESTART_GRACE_SECONDS < held.seconds <= FAILOVER_GRACE_SECONDS
            # The owner comes in time.
            assert ledger.renew([("job", ours.token)]) == {("job", ours.token): OURS}

            # A claim that the master has confirmed, and the replica never seen, is fenced off.
            new = ledger.claim("unseen", RECORD, "theirs")
            assert isinstance(new, Claimed)
            assert abs(new.token / 1000 - time.time()) < 60
            assert ledger.renew([("unseen", 1)]) == {("unseen", 1): 0}

            # Owners that do not come in time are dead.
            server.hset("comfyfleet:job:job", "until", 0)
            server.hincrby("comfyfleet:promotion", "since", -int(FAILOVER_GRACE_SECONDS * 1000))
            taken = eventually(
                lambda: isinstance(got := ledger.claim("job", RECORD, "theirs"), Claimed) and got
            )
            assert taken.owner_died
            assert taken.token > ours.token


def test_a_server_that_was_no_replica_has_no_such_grace(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that none is over before it is looked at.
    monkeypatch.setattr(module, "RESTART_GRACE_SECONDS", 60.0)
    monkeypatch.setattr(module, "FAILOVER_GRACE_SECONDS", 600.0)
    server = Valkey(stack.folder("alone"))
    try:
        with Ledger(server.url) as ledger, redis.Redis.from_url(server.url) as client:
            ledger.claim("job", RECORD, "ours")
            client.hset("comfyfleet:job:job", "until", 0)
            held = ledger.claim("job", RECORD, "theirs")
            assert isinstance(held, Held)
            assert held.seconds <= 60.0
            assert not client.exists("comfyfleet:promotion")
    finally:
        server.stop()
