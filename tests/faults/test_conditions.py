"""Stores that do not take conditional writes: a job is committed once all the same."""

import json

import pytest

from tests.faults.scenes import Fleet, errors, eventually, together
from tests.integration.store_proxy import Conditions, StoreProxy
from tests.stack import bars

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

TOLD = "does not take conditional writes"


@together
def test_what_a_frozen_owner_writes_late_changes_nothing(fleet: Fleet) -> None:
    server = fleet.server()
    url = fleet.stack.seaweedfs.url
    with (
        StoreProxy(url, Conditions.IGNORE) as slow,
        StoreProxy(url, Conditions.IGNORE) as quick,
    ):
        slow.hold_manifest.clear()
        owner = fleet.worker(server, S3_ENDPOINT_URL=slow.url)
        job = fleet.send(bars(1))
        assert slow.held.wait(30)
        # Its manifest is on its way for as long as it is held.
        owner.pause()
        other = fleet.worker(server, S3_ENDPOINT_URL=quick.url)
        result = job.get(timeout=60)
        committed = fleet.client.content(result["manifest"]["key"])
        assert quick.manifests == 1
        slow.hold_manifest.set()
        eventually(lambda: slow.manifests == 1)
        eventually(lambda: slow.answered == slow.asked)

        assert fleet.client.content(result["manifest"]["key"]) == committed
        assert json.loads(committed) == result
        assert fleet.executions() == {result["prompt_id"]: 1}
        owner.resume()
        assert eventually(fleet.has_drained)
        assert TOLD in other.log.read_text()


@together
def test_a_store_that_refuses_conditions_takes_every_job(fleet: Fleet) -> None:
    with StoreProxy(fleet.stack.seaweedfs.url, Conditions.REFUSE) as store:
        worker = fleet.worker(fleet.server(), S3_ENDPOINT_URL=store.url)
        results = [job.get(timeout=30) for job in [fleet.send(bars(seed)) for seed in (1, 2)]]
        assert [errors(one) for one in results] == [[None], [None]]
        for one in results:
            assert json.loads(fleet.client.content(one["manifest"]["key"])) == one
        assert worker.log.read_text().count(TOLD) == 1
        # It is known from the start, and not found out with each job.
        assert store.refused == 1
