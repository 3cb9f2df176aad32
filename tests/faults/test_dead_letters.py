"""A workflow that kills its ComfyUI: it ends in the dead letters, and the others go on."""

import time
from collections.abc import Callable, Iterator

import pytest

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.command_line import Comfyfleet
from tests.stack import Client, Workflow, bars
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

MAX_CRASHES = 2


class Fleet:
    """One worker, and a ComfyUI that is started again whenever it has died."""

    def __init__(self, stack: Stack) -> None:
        self.valkey = Valkey(stack.folder("valkey"))
        own = {"CELERY_BROKER_URL": self.valkey.url, "CELERY_RESULT_BACKEND": self.valkey.url}
        self.server = stack.stand_in()
        self.deaths = 0
        limit = {"JOB_MAX_CRASHES": str(MAX_CRASHES), "JOB_MAX_ATTEMPTS": "9"}
        self.worker = stack.worker(self.server.url, {**own, **limit})
        self.client = Client({**stack.environment(), **own})
        self.comfyfleet = Comfyfleet({**stack.environment(), **own})

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait, and start the server again each time."""
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, self.worker.tail(40)
            self._revive()
            time.sleep(0.02)
        # What the condition tells of may be its death.
        self._revive()

    def _revive(self) -> None:
        if self.server.process.returncode is not None:
            self.deaths += 1
            self.server.start()

    def executions(self, job_id: str) -> int:
        """How often the server began any prompt of a job."""
        counts = self.server.executions()
        return sum(counts.get(prompt_id(job_id, number), 0) for number in range(1, 20))

    def close(self) -> None:
        self.client.close()
        self.worker.kill()
        self.server.stop()
        self.valkey.stop()


@pytest.fixture
def fleet(stack: Stack) -> Iterator[Fleet]:
    one = Fleet(stack)
    yield one
    one.close()


def deadly(seed: int) -> Workflow:
    """Renders long enough to be seen executing, then takes the server with it."""
    workflow = bars(seed, seconds=1.0)
    fault = {"class_type": "SandboxFault", "inputs": {"images": ["1", 0], "fault": "die"}}
    workflow["2"]["inputs"]["images"] = ["3", 0]
    return {**workflow, "3": fault}


def test_a_job_that_kills_its_server_is_put_aside(fleet: Fleet, seed: int) -> None:
    before = [fleet.client.send(bars(seed + 100 + n)).id for n in range(2)]
    poison = fleet.client.send(deadly(seed), metadata={"shot": "7"}).id
    after = [fleet.client.send(bars(seed + 200 + n)).id for n in range(2)]
    others = [*before, *after]
    celery = fleet.client.celery
    fleet.wait_until(lambda: all(celery.AsyncResult(one).ready() for one in (poison, *others)))

    failed = celery.AsyncResult(poison)
    assert (failed.state, type(failed.result).__name__) == ("FAILURE", "PoisonedJobError")
    assert fleet.executions(poison) == fleet.deaths == MAX_CRASHES
    for other in others:
        assert celery.AsyncResult(other).get(timeout=1)["outputs"]
        assert fleet.executions(other) == 1

    (listed,) = fleet.comfyfleet("dead", "list", "--json").json
    assert listed["job_id"] == poison
    shown = fleet.comfyfleet("dead", "show", poison, "--json").json
    assert shown["request"] == {"workflow": deadly(seed), "metadata": {"shot": "7"}}
    assert len(shown["attempts"]) == MAX_CRASHES
    assert {one["instance"] for one in shown["attempts"]} == {fleet.server.url}
    printed = fleet.comfyfleet("result", poison, "--json")
    assert (printed.code, printed.json["error"]["type"]) == (1, "PoisonedJobError")
    assert printed.json["attempts"] == shown["attempts"]

    replayed = fleet.comfyfleet("dead", "replay", poison, "--json").json
    assert replayed["replay_of"] == poison
    replay = replayed["job_id"]
    fleet.wait_until(lambda: celery.AsyncResult(replay).ready())
    assert fleet.executions(replay) == MAX_CRASHES
    (listed,) = fleet.comfyfleet("dead", "list", "--json").json
    assert listed["job_id"] == replay
    shown = fleet.comfyfleet("dead", "show", replay, "--json").json
    assert shown["request"]["metadata"] == {"shot": "7", "replay_of": poison}

    assert fleet.comfyfleet("dead", "discard", replay).code == 0
    assert fleet.comfyfleet("dead", "list", "--json").json == []
    assert fleet.worker.returncode is None
