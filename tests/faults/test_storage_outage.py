"""The store is away: what was rendered is kept until it can be stored, and rendered once."""

from collections.abc import Mapping

import pytest
from botocore.exceptions import ClientError

from sandbox.proxy import Mode
from sandbox.seaweedfs import SeaweedFS
from tests.faults.scenes import Fleet, errors, eventually, executing, history, together
from tests.stack import Client, bars
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def is_denied(environment: Mapping[str, str]) -> bool:
    """Whether the store has heard that these credentials may not write."""
    client = Client(environment)
    try:
        client.s3.put_object(Bucket=client.bucket, Key="denied/probe", Body=b"")
    except ClientError:
        return True
    finally:
        client.close()
    return False


@together
def test_an_outage_beyond_all_patience_costs_no_second_execution(fleet: Fleet) -> None:
    server = fleet.server()
    store = fleet.proxy(fleet.stack.seaweedfs.url)
    worker = fleet.worker(
        server, S3_ENDPOINT_URL=f"http://{store.address}", S3_PATIENCE_SECONDS="2"
    )
    job = fleet.send(bars(1, seconds=4))
    prompt = executing(server)
    store.set(Mode.REFUSE)
    eventually(lambda: f"job {job.id} #2: attempt 2 failed" in worker.log.read_text())
    eventually(lambda: job.state == "RETRY")
    store.set(Mode.PASS)

    result = job.get(timeout=30)
    assert errors(result)[:2] == ["StorageUnavailableError"] * 2
    assert errors(result)[-1] is None
    assert {attempt["prompt_id"] for attempt in result["attempts"]} == {prompt}
    assert fleet.client.content(result["outputs"][0]["key"])
    assert fleet.executions() == {prompt: 1}


@together
def test_other_jobs_go_on_while_one_waits_for_the_store(fleet: Fleet) -> None:
    server = fleet.server()
    store = fleet.proxy(fleet.stack.seaweedfs.url)
    fleet.worker(server, S3_ENDPOINT_URL=f"http://{store.address}", WORKER_SLOTS="2")
    store.set(Mode.REFUSE)
    waits = fleet.send(bars(1))
    eventually(lambda: history(server, prompt_id(waits.id, 1)))
    goes_on = fleet.send(bars(2))
    eventually(lambda: history(server, prompt_id(goes_on.id, 1)))
    assert not waits.ready()
    store.set(Mode.PASS)

    results = [job.get(timeout=30) for job in (waits, goes_on)]
    assert [errors(result) for result in results] == [[None], [None]]
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}


@together
def test_a_store_that_is_restarted_has_the_result(fleet: Fleet) -> None:
    server = fleet.server()
    store = SeaweedFS(fleet.stack.folder("seaweedfs"))
    try:
        worker = fleet.worker(server, S3_ENDPOINT_URL=store.url)
        store.stop()
        job = fleet.send(bars(1))
        eventually(lambda: f"job {job.id}: output of node 2" in worker.log.read_text())
        store.start()
        result = job.get(timeout=60)
    finally:
        store.stop()
    assert errors(result) == [None]
    assert fleet.executions() == {result["prompt_id"]: 1}


@together
def test_a_store_that_hangs_has_the_result_when_it_goes_on(fleet: Fleet) -> None:
    server = fleet.server()
    store = fleet.proxy(fleet.stack.seaweedfs.url)
    fleet.worker(server, S3_ENDPOINT_URL=f"http://{store.address}")
    store.set(Mode.BLACKHOLE)
    job = fleet.send(bars(1))
    # It is rendered all the same.
    eventually(lambda: history(server, prompt_id(job.id, 1)))
    store.set(Mode.PASS)
    result = job.get(timeout=60)
    assert errors(result) == [None]
    assert fleet.executions() == {result["prompt_id"]: 1}


@together
def test_a_connection_that_is_cut_in_the_upload_is_no_new_attempt(fleet: Fleet) -> None:
    server = fleet.server()
    store = fleet.proxy(fleet.stack.seaweedfs.url)
    fleet.worker(server, S3_ENDPOINT_URL=f"http://{store.address}")
    job = fleet.send(bars(1, seconds=4))
    executing(server)
    # The next answer, which is to the first upload, does not arrive whole.
    store.cut_after(10)
    result = job.get(timeout=30)
    assert errors(result) == [None]
    stored = {output["key"].removeprefix(f"{result['job_id']}/") for output in result["outputs"]}
    assert fleet.stored(result["job_id"]) == {"manifest.json", *stored}
    assert fleet.executions() == {result["prompt_id"]: 1}


@together
def test_a_bucket_that_becomes_read_only_costs_no_more_than_one_render(fleet: Fleet) -> None:
    store, server = fleet.stack.seaweedfs, fleet.server()
    writer = store.allow("writer", "Read", "List", "Write")
    worker = fleet.worker(server, **writer)
    store.forbid("writer", "Write")
    eventually(lambda: is_denied({**fleet.stack.environment(), **writer}))
    rendered = fleet.send(bars(1))
    eventually(lambda: "no jobs are taken until it takes objects" in worker.log.read_text())
    waits = fleet.send(bars(2))
    store.allow("writer", "Read", "List", "Write")

    results = [job.get(timeout=60) for job in (rendered, waits)]
    assert [errors(result) for result in results] == [[None], [None]]
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}
    said = worker.log.read_text()
    assert "is read-only for these credentials" in said
    # Until then it was left in the queue.
    assert said.index("takes objects again") < said.index(f"job {waits.id}: received")
