"""Where a job waits: each branch of the decision, with servers that are told by the test."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from tasks.errors import (
    BrokerUnavailableError,
    ComfyUIUnavailableError,
    InvalidWorkflowError,
    NodeForbiddenError,
)
from workers.ledger.servers import Loaded, Server, Warmth
from workers.routing.capabilities import Capabilities
from workers.routing.lanes import Here, Lane, Later
from workers.routing.models import models_key
from workers.routing.pace import Pace
from workers.routing.router import Router, Wanted

WAIT = 30.0


def able_to(*classes: str, models: Iterable[str] = ("a.ckpt", "b.ckpt")) -> Capabilities:
    files = list(models)
    info: dict[str, Any] = {name: {"input": {"required": {}}} for name in classes}
    info["Save"] = {"input": {"required": {}}, "output_node": True}
    info["Loader"] = {"input": {"required": {"name": [files]}}}
    return Capabilities.of(json.dumps(info), {"checkpoints": files})


OWN, ALIKE, FEWER, MORE = able_to("A"), able_to("A"), able_to(), able_to("A", "B")
A, B, C = ({"1": {"class_type": name, "inputs": {}}} for name in "ABC")


def loading(file: str, *nodes: Mapping[str, Any]) -> dict[str, Any]:
    workflow = {"9": {"class_type": "Loader", "inputs": {"name": file}}}
    for one in nodes:
        workflow |= one
    return workflow


def key(file: str) -> str:
    return models_key(loading(file), OWN.models)


def wanted(workflow: dict[str, Any], **options: Any) -> Wanted:
    return Wanted(lambda _: workflow, **options)


class Survey:
    """What a worker knows of its server and of the others, as the test has it."""

    def __init__(self) -> None:
        self.capabilities: Capabilities | None = OWN
        self.others: tuple[Server, ...] = ()
        self.live: tuple[Server, ...] | None = None
        self.settling_seconds = self.returning_seconds = 0.0
        self.after_complaint: Capabilities | None = OWN
        self.complaints = 0
        self.error: Exception | None = None
        self.on_told: list[Callable[[], None]] = []

    def subscribe(self, on_told: Callable[[], None]) -> None:
        self.on_told.append(on_told)

    def complain(self) -> None:
        if self.error is not None:
            raise self.error
        self.complaints += 1
        self.capabilities = self.after_complaint

    def look_at_others(self) -> tuple[Server, ...]:
        if self.error is not None:
            raise self.error
        if self.live is not None:
            self.others = self.live
        return self.others


class Servers:
    """What the fleet shares."""

    def __init__(self) -> None:
        self.packed: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.warmth: Warmth = "here"
        self.warmed: list[tuple[Loaded, frozenset[str], bool, bool]] = []
        self.error: Exception | None = None

    def remembered(self) -> list[str]:
        return list(self.packed)

    def capabilities(self, digest: str) -> bytes | None:
        self.asked.append(digest)
        if self.error is not None:
            raise self.error
        return self.packed.get(digest)

    def warm_up(
        self,
        loaded: Loaded,
        *,
        unable: Iterable[str] = (),
        may: bool = True,
        must: bool = False,
    ) -> Warmth:
        if self.error is not None:
            raise self.error
        self.warmed.append((loaded, frozenset(unable), may, must))
        return "here" if must else self.warmth


class Scene:
    """A router with all that it asks."""

    def __init__(self, wait_seconds: float) -> None:
        self.survey, self.servers, self.pace = Survey(), Servers(), Pace()
        self.is_idle = True
        self.router = Router(
            servers=self.servers,  # type: ignore[arg-type]
            survey=self.survey,  # type: ignore[arg-type]
            pace=self.pace,
            place="here",
            is_idle=lambda: self.is_idle,
            wait_seconds=wait_seconds,
        )

    def others(self, *capabilities: Capabilities, told: bool = True) -> None:
        """Have other servers that can do so much."""
        self.survey.others = tuple(
            Server(
                place=f"there{number}",
                instance="http://there",
                worker="w",
                version="",
                digest=one.digest,
                takes_jobs=True,
            )
            for number, one in enumerate(capabilities)
        )
        if told:
            self.servers.packed |= {one.digest: one.packed() for one in capabilities}

    def decide(self, workflow: dict[str, Any], **options: Any) -> Here | Lane:
        return self.router.decide(wanted(workflow, **options))


@pytest.fixture
def plain() -> Scene:
    """Without waiting for loaded models."""
    return Scene(0.0)


@pytest.fixture
def warm() -> Scene:
    """With it; another server is like this one."""
    scene = Scene(WAIT)
    scene.others(ALIKE)
    return scene


# By what servers can do


def test_alone_it_has_every_job(plain: Scene) -> None:
    assert plain.decide(C) == Here()


def test_who_does_not_know_its_server_has_every_job(plain: Scene) -> None:
    plain.others(MORE)
    plain.survey.capabilities = None
    assert plain.decide(C) == Here()
    assert plain.router.digest == ""


def test_among_equals_nothing_is_looked_into(plain: Scene) -> None:
    plain.others(ALIKE, ALIKE)

    def prepare(_: object) -> Any:
        pytest.fail("nothing depends on it")

    assert plain.router.decide(Wanted(prepare)) == Here()


def test_what_it_can_run_is_its_own_and_not_for_who_cannot(plain: Scene) -> None:
    plain.others(MORE, FEWER, FEWER)
    assert plain.decide(A) == Here(unable=frozenset({FEWER.digest}))
    assert plain.router.digest == OWN.digest


def test_what_it_cannot_run_goes_to_who_can(plain: Scene) -> None:
    plain.others(MORE, FEWER)
    assert plain.decide(B) == Lane.of("", [OWN.digest, FEWER.digest])


def test_what_nobody_can_run_is_its_own_to_refuse(plain: Scene) -> None:
    plain.others(MORE, FEWER)
    assert plain.decide(C) == Here()


def test_what_is_not_allowed_is_sent_to_nobody(plain: Scene) -> None:
    plain.others(MORE, FEWER)

    def prepare(_: object) -> Any:
        raise NodeForbiddenError("node 1 (B): its class is not allowed here")

    assert plain.router.decide(Wanted(prepare)) == Here()


def test_what_is_in_a_lane_is_decided_by_who_is_there_now(plain: Scene) -> None:
    plain.others(MORE)
    plain.survey.live = ()
    # Who could run it has gone.
    assert plain.decide(B) == Lane.of("", [OWN.digest])
    assert plain.decide(B, in_lane=True) == Here()


@pytest.mark.parametrize("packed", [None, b"as another version has it"])
def test_who_is_not_known_to_be_unable_may_try(plain: Scene, packed: bytes | None) -> None:
    plain.others(MORE, told=False)
    if packed is not None:
        plain.servers.packed[MORE.digest] = packed
    assert plain.decide(C) == Lane.of("", [OWN.digest])
    assert plain.decide(A) == Here()


def test_what_is_no_workflow_waits_for_no_server_that_is_not_known(plain: Scene) -> None:
    plain.others(MORE, told=False)

    def prepare(_: Mapping[str, Any]) -> Any:
        raise InvalidWorkflowError("the workflow is empty")

    job = Wanted(prepare, is_sound=lambda: False)
    assert plain.router.decide(job) == Here()
    plain.survey.settling_seconds = 3.0
    assert plain.router.after_refusal(job) is None


def test_what_came_again_is_looked_into_here(plain: Scene) -> None:
    plain.others(MORE, FEWER)
    expected = Here(unable=frozenset({FEWER.digest}))
    assert plain.decide(B, came_again=True) == expected


def test_files_that_are_placed_first_are_there(plain: Scene) -> None:
    workflow = loading("new.ckpt")
    plain.others(able_to("A", models=["new.ckpt"]))
    assert isinstance(plain.decide(workflow), Lane)
    assert plain.decide(workflow, placed={"new.ckpt": "data:,"}) == Here()


def test_capabilities_are_fetched_once(plain: Scene) -> None:
    # Hardly two servers have the same files.
    others = [able_to("A", models=[f"{number}.ckpt"]) for number in range(20)]
    plain.others(*others)
    for _ in range(3):
        plain.decide(A)
    assert sorted(plain.servers.asked) == sorted(one.digest for one in others)


def test_capabilities_that_are_not_told_are_asked_for_again(plain: Scene) -> None:
    plain.others(MORE, told=False)
    plain.decide(A)
    plain.servers.packed[MORE.digest] = MORE.packed()
    plain.decide(A)
    assert plain.servers.asked == [MORE.digest, MORE.digest]


def test_without_redis_every_job_is_its_own(plain: Scene, caplog: pytest.LogCaptureFixture) -> None:
    plain.others(MORE)
    plain.servers.error = BrokerUnavailableError("Redis is away")
    assert plain.decide(B) == Here()
    assert "Redis is away" in caplog.text


# After a refusal


def test_what_the_server_refused_goes_to_who_can(plain: Scene) -> None:
    plain.others(MORE, FEWER)
    lane = plain.router.after_refusal(wanted(B))
    assert lane == Lane.of("", [OWN.digest, FEWER.digest])
    assert plain.survey.complaints == 0


def test_what_nobody_can_run_goes_nowhere(plain: Scene) -> None:
    plain.others(MORE)
    assert plain.router.after_refusal(wanted(C)) is None
    plain.others()
    assert plain.router.after_refusal(wanted(B)) is None


def test_while_others_may_not_have_been_heard_of_it_is_too_early(plain: Scene) -> None:
    plain.survey.settling_seconds = 3.0
    assert plain.router.after_refusal(wanted(B)) == Later(3.0)
    assert plain.router.after_refusal(wanted(A)) is None
    plain.others(MORE)
    assert plain.router.after_refusal(wanted(B)) == Lane.of("", [OWN.digest])


def test_a_fleet_that_was_started_again_comes_back_one_by_one(plain: Scene) -> None:
    plain.others(MORE)
    plain.others()
    # Nobody who could do it is there, but somebody was.
    plain.survey.returning_seconds = 50.0
    assert plain.router.after_refusal(wanted(B)) == Later(5.0)
    plain.survey.returning_seconds = 2.0
    assert plain.router.after_refusal(wanted(B)) == Later(2.0)
    # Nobody ever could.
    assert plain.router.after_refusal(wanted(C)) is None
    plain.survey.returning_seconds = 0.0
    assert plain.router.after_refusal(wanted(B)) is None


def test_a_refusal_that_was_not_foreseen_has_the_server_looked_at_again(plain: Scene) -> None:
    plain.others(OWN)
    plain.survey.after_complaint = FEWER
    assert plain.router.after_refusal(wanted(A)) == Lane.of("", [FEWER.digest])
    assert plain.survey.complaints == 1


def test_what_is_refused_for_no_reason_that_can_be_seen_goes_to_those_that_differ(
    plain: Scene,
) -> None:
    plain.others(OWN, MORE)
    assert plain.router.after_refusal(wanted(A)) == Lane.of("", [OWN.digest])
    assert plain.survey.complaints == 1
    # They have refused it before.
    tried = wanted(A, in_lane=True, unable=frozenset([MORE.digest]))
    assert plain.router.after_refusal(tried) is None
    plain.others(OWN)
    assert plain.router.after_refusal(wanted(A)) is None
    # Nor is anything to be expected of those that may still come.
    plain.survey.settling_seconds = 3.0
    assert plain.router.after_refusal(wanted(A)) is None


def test_who_does_not_know_its_server_leaves_what_it_refuses_to_others(plain: Scene) -> None:
    plain.others(MORE)
    plain.survey.capabilities = plain.survey.after_complaint = None
    assert plain.router.after_refusal(wanted(A)) == Lane.of("", [""])


def test_after_a_refusal_what_is_unknown_is_said(plain: Scene) -> None:
    plain.survey.error = ComfyUIUnavailableError("away")
    with pytest.raises(ComfyUIUnavailableError):
        plain.router.after_refusal(wanted(A))
    plain.survey.error = BrokerUnavailableError("away")
    with pytest.raises(BrokerUnavailableError):
        plain.router.after_refusal(wanted(B))


def test_who_cannot_be_looked_at_again_leaves_what_it_refuses_to_others(plain: Scene) -> None:
    plain.others(MORE, FEWER)
    plain.survey.complain = fails  # type: ignore[method-assign]
    expected = Lane.of("", [OWN.digest, FEWER.digest])
    assert plain.router.after_refusal(wanted(A)) == expected
    # Nor does it take from there what it can only refuse.
    plain.survey.capabilities = None
    expected = Lane.of("", ["", FEWER.digest])
    assert plain.router.after_refusal(wanted(A)) == expected
    assert plain.router.after_refusal(wanted(C)) is None


def fails() -> None:
    raise ComfyUIUnavailableError("away")


@pytest.mark.parametrize("step", ["decide", "after_refusal"])
def test_who_is_known_elsewhere_to_be_unable_is_not_sent_the_job_again(
    plain: Scene, step: str
) -> None:
    # As when each of two workers cannot read what the other has told: neither knows better.
    plain.others(MORE, FEWER, told=False)
    job = wanted(C, in_lane=True, unable=frozenset({MORE.digest, "of one that is gone"}))
    ask = getattr(plain.router, step)
    assert ask(job) == Lane.of("", [OWN.digest, MORE.digest])
    plain.others(MORE, told=False)
    assert ask(job) == (Here() if step == "decide" else None)


def test_a_refusal_is_explained_by_what_is_missing(plain: Scene) -> None:
    refused = InvalidWorkflowError("the server refuses it")
    explained = plain.router.explained(wanted(C), refused)
    assert explained.message == "node 1 (C): the server does not know its class"
    plain.others(MORE, FEWER)
    assert plain.router.explained(wanted(C), refused).message.endswith(
        " (and no other server can run it)"
    )


def test_what_is_wrong_with_a_job_is_told_by_who_lacks_nothing_for_it(plain: Scene) -> None:
    counting = {"C": {"input": {"required": {"steps": ["INT", {"min": 1, "max": 9}]}}}}
    plain.others(FEWER, Capabilities.of(json.dumps(counting), {}))
    refused = InvalidWorkflowError("the server refuses it")
    wrong = {"1": {"class_type": "C", "inputs": {"steps": 10}}}
    assert plain.router.explained(wanted(wrong), refused).message == (
        "node 1 (C), input steps: found 10, expected a whole number from 1 to 9"
        " (and no other server can run it)"
    )

    def prepare(nodes: Mapping[str, Any]) -> Any:
        if "C" in nodes:
            raise InvalidWorkflowError("param '1.stepz': there is no such input")
        return wrong

    assert plain.router.explained(Wanted(prepare), refused).message == (
        "param '1.stepz': there is no such input (and no other server can run it)"
    )


def test_a_refusal_that_nothing_explains_stays_as_it_is(plain: Scene) -> None:
    refused = InvalidWorkflowError("the server refuses it")
    assert plain.router.explained(wanted(A), refused) is refused
    plain.survey.capabilities = None
    assert plain.router.explained(wanted(C), refused) is refused

    def prepare(_: object) -> Any:
        raise InvalidWorkflowError("cannot be converted")

    plain.survey.capabilities = OWN
    assert plain.router.explained(Wanted(prepare), refused) is refused


# Before the server is asked


def save(node_id: str) -> dict[str, Any]:
    return {node_id: {"class_type": "Save", "inputs": {"images": ["9", 0]}}}


def test_a_workflow_that_would_run_in_part_is_refused(plain: Scene) -> None:
    workflow = loading("x.ckpt", save("2"), save("3"))
    with pytest.raises(InvalidWorkflowError, match=r"node 9 .* does not have 'x.ckpt'"):
        plain.router.refuse_parts(workflow, ())
    plain.router.refuse_parts(workflow, {"x.ckpt": ""})
    plain.router.refuse_parts(loading("a.ckpt", save("2"), save("3")), ())
    # The server refuses as a whole what has one output.
    plain.router.refuse_parts(loading("x.ckpt", save("2")), ())
    plain.survey.capabilities = None
    plain.router.refuse_parts(workflow, ())


def test_what_a_node_may_see_otherwise_is_not_refused(plain: Scene) -> None:
    info = {
        "Save": {"input": {"required": {}}, "output_node": True},
        "Boxes": {"input": {"required": {"box": [[{"id": 1}]]}}},
    }
    plain.survey.capabilities = Capabilities.of(json.dumps(info), {})
    boxes = {"9": {"class_type": "Boxes", "inputs": {"box": "first"}}}
    plain.router.refuse_parts({**boxes, **save("2"), **save("3")}, ())


def test_who_cannot_run_a_job_is_unfit(plain: Scene) -> None:
    plain.others(MORE, FEWER, FEWER)
    assert plain.router.unfit(wanted(A)) == {"there1", "there2"}
    assert plain.router.unfit(wanted(B)) == {"there1", "there2"}
    assert plain.router.unfit(wanted(C)) == {"there0", "there1", "there2"}


# Warm first


def test_a_job_whose_models_nobody_has_is_begun_here(warm: Scene) -> None:
    here = warm.decide(loading("a.ckpt"))
    assert here == Here(key("a.ckpt"), cold=True, bound_seconds=WAIT)
    assert warm.router.models == key("a.ckpt")
    own = Loaded(key("a.ckpt"), OWN.digest, "here")
    assert [loaded for loaded, _, _, _ in warm.servers.warmed] == [own, own]
    # Whoever else has them by now: it loads them.
    assert [must for _, _, _, must in warm.servers.warmed] == [False, True]


def test_a_job_whose_models_are_loaded_is_begun_here(warm: Scene) -> None:
    warm.decide(loading("a.ckpt"))
    warm.servers.warmed.clear()
    assert warm.decide(loading("a.ckpt")) == Here(key("a.ckpt"), bound_seconds=WAIT)
    assert warm.servers.warmed == []


@pytest.mark.parametrize("warmth", ["elsewhere", "nowhere"])
def test_a_job_for_other_models_waits_for_them(warm: Scene, warmth: Warmth) -> None:
    warm.decide(loading("a.ckpt"))
    warm.servers.warmth, warm.is_idle = warmth, warmth == "elsewhere"
    warm.servers.warmed.clear()
    assert warm.decide(loading("b.ckpt")) == Lane.of(key("b.ckpt"), ())
    # It may load them itself only if it has nothing else to do.
    ((_, _, may, must),) = warm.servers.warmed
    assert (may, must) == (warm.is_idle, False)
    assert warm.router.models == key("a.ckpt")


def test_who_cannot_run_a_job_is_not_waited_for(warm: Scene) -> None:
    warm.others(ALIKE, FEWER)
    warm.servers.warmth = "elsewhere"
    assert warm.decide(loading("b.ckpt", A)) == Lane.of(key("b.ckpt"), [FEWER.digest])
    assert [unable for _, unable, _, _ in warm.servers.warmed] == [{FEWER.digest}]


def test_a_job_from_a_lane_is_begun_whatever_is_loaded(warm: Scene) -> None:
    warm.servers.warmth = "elsewhere"
    assert warm.decide(loading("b.ckpt"), in_lane=True) == Here(
        key("b.ckpt"), cold=True, bound_seconds=WAIT
    )


def test_a_job_without_models_is_begun_here(warm: Scene) -> None:
    warm.servers.warmth = "elsewhere"
    assert warm.decide(A) == Here()
    warm.others(ALIKE, FEWER)
    assert warm.decide(A) == Here(unable=frozenset({FEWER.digest}))


def test_what_another_one_can_run_waits_for_its_models_there(warm: Scene) -> None:
    warm.others(MORE, FEWER)
    assert warm.decide(loading("a.ckpt", B)) == Lane.of(key("a.ckpt"), [OWN.digest, FEWER.digest])


def test_models_that_only_another_one_has_are_named_as_there(warm: Scene) -> None:
    models = ("a.ckpt", "b.ckpt", "c.ckpt")
    warm.others(able_to("A", models=models))
    its = models_key(loading("c.ckpt"), {"checkpoints": models})
    assert its
    assert warm.decide(loading("c.ckpt")) == Lane.of(its, [OWN.digest])


def test_what_nobody_can_run_says_which_models_it_has(warm: Scene) -> None:
    assert warm.decide(loading("a.ckpt", C)) == Here(key("a.ckpt"))


def test_without_warm_first_no_models_count(plain: Scene) -> None:
    plain.others(MORE)
    plain.servers.warmth = "elsewhere"
    assert plain.decide(loading("a.ckpt")) == Here()
    assert plain.decide(loading("a.ckpt", B)) == Lane.of("", [OWN.digest])
    assert (plain.servers.warmed, plain.router.models) == ([], "")


def test_known_seconds_bound_what_a_job_is_kept_for(warm: Scene) -> None:
    warm.pace.note(key("a.ckpt"), 11.0, cold=True)
    warm.pace.note(key("a.ckpt"), 2.0, cold=False)
    here = warm.decide(loading("a.ckpt"))
    assert isinstance(here, Here)
    assert here.bound_seconds == 9.0
    warm.pace.note(key("a.ckpt"), 1000.0, cold=True)
    here = warm.decide(loading("a.ckpt"))
    assert isinstance(here, Here)
    assert here.bound_seconds == WAIT


def test_a_lane_is_worth_what_loading_costs(warm: Scene) -> None:
    warm.pace.note(key("a.ckpt"), 11.0, cold=True)
    warm.pace.note(key("a.ckpt"), 2.0, cold=False)
    warm.servers.warmth = "elsewhere"
    lane = warm.decide(loading("a.ckpt"))
    assert isinstance(lane, Lane)
    assert lane.worth == 6


def test_what_came_again_is_begun_here_and_loads_its_models(warm: Scene) -> None:
    # As a job does that another worker had to spare.
    warm.others(ALIKE, FEWER)
    warm.decide(loading("a.ckpt"))
    warm.servers.warmth = "elsewhere"
    again = warm.decide(loading("b.ckpt", A), came_again=True)
    unable = frozenset({FEWER.digest})
    assert again == Here(key("b.ckpt"), cold=True, unable=unable, bound_seconds=WAIT)
    assert warm.router.models == key("b.ckpt")
    # What the server may refuse loads nothing.
    assert warm.decide(loading("a.ckpt", C), came_again=True) == Here(
        unable=frozenset({FEWER.digest})
    )
    assert warm.router.models == key("b.ckpt")


# How many it sorts


def test_who_sorts_for_others_only_tires_and_a_job_of_its_own_refreshes(warm: Scene) -> None:
    warm.servers.warmth, warm.is_idle = "elsewhere", False
    for number in range(16):
        assert not warm.router.tired, number
        assert isinstance(warm.decide(loading("b.ckpt")), Lane)
    assert warm.router.tired
    warm.servers.warmth = "here"
    assert isinstance(warm.decide(loading("a.ckpt")), Here)
    assert not warm.router.tired


def test_whose_server_idles_takes_one_of_them_at_last(warm: Scene) -> None:
    warm.servers.warmth = "elsewhere"
    sorted_first = 0
    while isinstance(warm.decide(loading("b.ckpt")), Lane):
        sorted_first += 1
        assert sorted_first <= 32
    assert sorted_first == 32
    assert warm.router.models == key("b.ckpt")
    assert isinstance(warm.decide(loading("a.ckpt")), Lane)


def test_whose_server_executes_goes_on_sorting(warm: Scene) -> None:
    warm.servers.warmth, warm.is_idle = "elsewhere", False
    assert all(isinstance(warm.decide(loading("b.ckpt")), Lane) for _ in range(40))


# What others believe


def test_others_are_told_again_and_again_what_is_loaded(warm: Scene) -> None:
    (stay_warm,) = warm.survey.on_told
    stay_warm()
    assert warm.servers.warmed == []
    warm.decide(loading("a.ckpt"))
    warm.servers.warmed.clear()
    stay_warm()
    ((loaded, _, _, must),) = warm.servers.warmed
    assert (loaded, must) == (Loaded(key("a.ckpt"), OWN.digest, "here"), True)


def test_what_may_not_be_loaded_any_more_is_not_counted_on(warm: Scene) -> None:
    warm.router.forget_loaded()
    assert warm.servers.warmed == []
    warm.decide(loading("a.ckpt"))
    warm.servers.warmed.clear()
    warm.router.forget_loaded()
    ((loaded, _, _, must),) = warm.servers.warmed
    assert (loaded, must) == (Loaded("", OWN.digest, "here"), True)
    assert warm.router.models == ""


def test_it_is_forgotten_without_redis_too(warm: Scene, caplog: pytest.LogCaptureFixture) -> None:
    warm.decide(loading("a.ckpt"))
    warm.servers.error = BrokerUnavailableError("away")
    warm.router.forget_loaded()
    assert warm.router.models == ""
    assert "away" in caplog.text


def test_without_redis_a_job_is_begun_whatever_it_loads(warm: Scene) -> None:
    warm.decide(loading("a.ckpt"))
    warm.servers.error = BrokerUnavailableError("away")
    assert isinstance(warm.decide(loading("b.ckpt")), Here)
