"""Stores that take no conditional writes: a job is committed once all the same."""

import json

import pytest

from tests.faults.scenes import Fleet, eventually, together
from tests.integration.store_proxy import Conditions, StoreProxy
from tests.stack import bars

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@together
def test_what_a_frozen_owner_writes_late_changes_nothing(fleet: Fleet) -> None:
    server = fleet.server()
    url = fleet.stack.seaweedfs.url
    # The same store, that ignores conditions before one worker and refuses them before the other.
    with (
        StoreProxy(url, Conditions.IGNORE) as slow,
        StoreProxy(url, Conditions.REFUSE) as quick,
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

        assert fleet.client.content(result["manifest"]["key"]) == committed
        assert json.loads(committed) == result
        assert fleet.executions() == {result["prompt_id"]: 1}
        owner.resume()
        assert eventually(fleet.has_drained)
        assert other.log.read_text().count("does not take conditional writes") == 1
        # It is known from the start, and not found out with each job.
        assert quick.refused == 1
