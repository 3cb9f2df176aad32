"""Commits on paper: who is first, in a store that refuses a second one and in one that does not."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import (
    BrokerUnavailableError,
    JobCancelledError,
    JobError,
    StorageDeniedError,
    StorageUnavailableError,
)
from tasks.result import JobResult, ObjectRef, Timings
from workers.execution import manifests as module
from workers.execution.control import LeaseLost
from workers.execution.keeper import Lease
from workers.execution.manifests import Manifests
from workers.storage.probe import Conditions, probe

KEY = "job/manifest.json"


def result(worker: str) -> JobResult:
    return JobResult(
        job_id="job",
        prompt_id="p",
        instance="http://gpu",
        worker=worker,
        attempts=[],
        metadata={},
        outputs=[],
        manifest=ObjectRef(bucket="b", key=KEY),
        timings=Timings(queued=0, staged=0, executed=0, uploaded=0, total=0, nodes={}),
        values={},
        seeds={},
    )


class Store:
    """Keeps what it gets, and knows conditions or does not."""

    bucket = "b"

    def __init__(self, error: JobError | None = None, *, ignores: bool = False) -> None:
        self.contents: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.condition_error = error
        self.errors: list[JobError] = []
        self.removal_error: JobError | None = None
        self._ignores = ignores

    def look(self) -> None:
        pass

    def get(self, key: str) -> bytes | None:
        self.asked.append("get")
        return self.contents.get(key)

    def create(self, key: str, content: bytes, _: str) -> bool:
        self.asked.append("create")
        if self.condition_error is not None:
            raise self.condition_error
        if key in self.contents and not self._ignores:
            return False
        self.contents[key] = content
        return True

    def replace(self, key: str, content: bytes, _: str) -> None:
        self.asked.append("replace")
        if self.errors:
            raise self.errors.pop(0)
        self.contents[key] = content

    def delete(self, keys: list[str]) -> None:
        if self.removal_error is not None:
            raise self.removal_error
        for key in keys:
            del self.contents[key]


class Ledger:
    """Redis' part in it."""

    def __init__(self) -> None:
        self.token = 1
        self.manifest: str | None = None
        self.errors: list[JobError] = []

    def commit(self, _: str, token: int, manifest: str) -> str | None:
        if self.errors:
            raise self.errors.pop(0)
        if token != self.token:
            return None
        self.manifest = self.manifest or manifest
        return self.manifest

    def committed(self, _: str) -> str | None:
        if self.errors:
            raise self.errors.pop(0)
        return self.manifest


def nothing() -> None:
    pass


class Scene:
    def __init__(self, *, conditional: bool = False) -> None:
        self.store, self.ledger = Store(), Ledger()
        self.on_confirm = nothing
        self.manifests = Manifests(
            self.store,  # type: ignore[arg-type]
            self.ledger,  # type: ignore[arg-type]
            SimpleNamespace(confirm=lambda _: self.on_confirm()),  # type: ignore[arg-type]
            takes_conditions=lambda: conditional,
        )

    def commit(self, worker: str, token: int = 1) -> JobResult:
        return self.manifests.commit(Lease("job", token, 0.0), result(worker))

    @property
    def committed(self) -> str:
        return str(json.loads(self.store.contents[KEY])["worker"])


@pytest.fixture(params=[True, False], ids=["conditional", "by-ledger"])
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(conditional=request.param)


def test_the_first_commits_and_the_second_has_its_result(scene: Scene) -> None:
    assert scene.commit("first").worker == "first"
    scene.ledger.token = 2
    assert scene.commit("second", token=2).worker == "first"
    assert scene.committed == "first"


def test_what_the_ledger_has_forgotten_the_store_knows(scene: Scene) -> None:
    scene.commit("first")
    scene.ledger.manifest, scene.ledger.token = None, 1
    assert scene.commit("second").worker == "first"
    assert scene.committed == "first"


def test_a_store_with_conditions_is_asked_once_and_the_ledger_not_at_all() -> None:
    scene = Scene(conditional=True)
    scene.commit("first")
    assert scene.store.asked == ["create"]
    assert scene.ledger.manifest is None


def test_a_manifest_that_is_refused_and_not_there_either_commits_nothing() -> None:
    scene = Scene(conditional=True)
    scene.store.get = lambda _: None  # type: ignore[method-assign]
    scene.commit("first")
    # Whoever commits asks again.
    with pytest.raises(StorageUnavailableError, match="refuses a manifest"):
        scene.commit("second")


def test_two_at_once_write_the_same() -> None:
    scene = Scene()

    def commit_meanwhile() -> None:
        # Both have looked, and seen nothing.
        scene.on_confirm = nothing
        scene.commit("quick")
        del scene.store.contents[KEY]

    scene.on_confirm = commit_meanwhile
    assert scene.commit("slow").worker == "quick"
    assert scene.committed == "quick"


def test_who_has_lost_the_job_decides_nothing() -> None:
    scene = Scene()
    scene.ledger.token = 2
    with pytest.raises(LeaseLost):
        scene.commit("late")
    assert scene.store.contents == {}
    assert scene.ledger.manifest is None


def test_what_was_decided_is_written_by_whoever_finds_it() -> None:
    scene = Scene()
    scene.store.errors = [StorageUnavailableError("away")]
    with pytest.raises(StorageUnavailableError):
        scene.commit("first")
    assert scene.manifests.may_name("job")
    found = scene.manifests.find("job", KEY)
    assert found == scene.store.contents[KEY]
    assert scene.committed == "first"


def test_nothing_is_found_of_a_job_that_nobody_committed(scene: Scene) -> None:
    assert scene.manifests.find("job", KEY) is None
    assert not scene.manifests.may_name("job")


def test_where_it_is_not_known_files_may_be_named() -> None:
    scene = Scene()
    scene.ledger.errors = [BrokerUnavailableError("away")]
    assert scene.manifests.may_name("job")


def test_a_ledger_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REDIS_PAUSE", 0.0)
    scene = Scene()
    scene.ledger.errors = [BrokerUnavailableError("away")] * 2
    assert scene.commit("first").worker == "first"


def test_a_job_that_is_cancelled_before_it_is_sealed_is_not_written() -> None:
    scene = Scene()
    lease = Lease("job", 1, 0.0)
    lease.control.stop(JobCancelledError("no"))
    with pytest.raises(JobCancelledError):
        scene.manifests.commit(lease, result("first"))
    assert scene.store.contents == {}


# What a store does with conditions


def caused(error: JobError, status: int) -> JobError:
    from botocore.exceptions import ClientError

    answer: Any = {"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error.__cause__ = ClientError(answer, "PutObject")
    return error


@pytest.mark.parametrize(
    ("store", "taken"),
    [
        (Store(), True),
        (Store(ignores=True), False),
        (Store(caused(StorageUnavailableError("501"), 501)), False),
        (Store(caused(StorageUnavailableError("400"), 400)), False),
    ],
)
def test_a_probe_tells_and_leaves_nothing(store: Store, taken: bool) -> None:
    probed = probe(store, "renders")  # type: ignore[arg-type]
    assert (probed.takes_conditions, probed.removal_error) == (taken, None)
    assert store.contents == {}


@pytest.mark.parametrize(
    "error",
    [
        caused(StorageUnavailableError("503"), 503),
        StorageUnavailableError("no answer"),
        caused(StorageDeniedError("403"), 403),
    ],
)
def test_a_store_that_cannot_be_written_tells_nothing(error: JobError) -> None:
    with pytest.raises(type(error)):
        probe(Store(error), "")  # type: ignore[arg-type]


def test_it_is_probed_once_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(ignores=True)
    store.removal_error = StorageDeniedError("no removal")
    conditions = Conditions(store, "")  # type: ignore[arg-type]
    assert not conditions.are_taken()
    assert not conditions.are_taken()
    assert store.asked == ["create", "create"]
    conditions.look()
    told = [record.message for record in caplog.records]
    assert sum("If-None-Match" in line for line in told) == 1
    assert any("no removal" in line for line in told)
