"""Whatever arrives, from producers or from ComfyUI: an error of ours or a safe value, and soon."""

import json
import reprlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import Any

import puremagic.main
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from tasks.errors import (
    MOST_CHARACTERS,
    InvalidRequestError,
    InvalidWorkflowError,
    JobError,
    NodeFailedError,
    OutOfMemoryError,
)
from tasks.request import JobRequest, parse_request
from tasks.result import Progress
from tasks.workflow import check_size, check_workflow
from tests.recordings import VERSIONS, exchanges, history_entry, websocket_messages
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.history import (
    OutputFile,
    failure_in,
    output_files,
    overwritten,
    shown_values,
)
from workers.comfyui.model import FileRef, PromptQueue, PromptState
from workers.comfyui.progress import PromptProgress, fold
from workers.comfyui.rejection import describe_rejection
from workers.nodes.params import apply_params, check_values
from workers.storage.content_type import HEAD_BYTES, content_type
from workers.storage.keys import job_folder, manifest_key, output_key

# The same examples each time: what CI finds, everybody finds.
hostile = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

SECRET = "UExBTlRFRA"
DATA_URL = f"data:image/png;base64,{SECRET}=="
ODD_TEXTS = [
    *("", ".", "..", "../..", "/etc/passwd", "..\\x", "a\0b", "a\nb\x1b[31m", "\u202egnp.exe"),
    *("\ud800", "x\udcff.png", "a. ", " ", "日本.png", "é" * 2000, "x" * 4096, "NaN", "__type__"),
    *(DATA_URL, f" see DATA:,{SECRET}", f"https://u:{SECRET}@h/k", f"https://h/k?sig={SECRET}"),
]
TEXT = st.text(st.characters(), max_size=12) | st.sampled_from(ODD_TEXTS)
NUMBER = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308, 2**63])
SCALAR = st.none() | st.booleans() | NUMBER | TEXT


def nested(levels: int, key: str | None = None) -> Any:
    """A list in a list, or an object in an object, so many levels deep."""
    value: Any = 1
    for _ in range(levels):
        value = [value] if key is None else {key: value}
    return value


# As deep as the decoder lets through.
DEEP = st.sampled_from([nested(900), nested(900, "a"), nested(101), nested(99, "filename")])
JSON = DEEP | st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@dataclass(frozen=True)
class Drawn:
    """An example that may be too deep to be printed whole."""

    value: Any

    def __repr__(self) -> str:
        return reprlib.repr(self.value)


@st.composite
def drawn(draw: st.DrawFn, strategy: st.SearchStrategy[Any]) -> Drawn:
    return Drawn(draw(strategy))


@st.composite
def spoilt(draw: st.DrawFn, sound: Any) -> Any:
    """A sound value of which one part, at any depth, is replaced, removed or renamed."""
    if not (isinstance(sound, dict | list) and sound) or draw(st.integers(0, 4)) == 0:
        return draw(JSON)
    if isinstance(sound, list):
        at = draw(st.integers(0, len(sound) - 1))
        return [*sound[:at], draw(spoilt(sound[at])), *sound[at + 1 :]]
    key = draw(st.sampled_from(sorted(sound)))
    rest = {name: value for name, value in sound.items() if name != key}
    match draw(st.sampled_from(["value", "value", "value", "name", "none"])):
        case "value":
            return {**sound, key: draw(spoilt(sound[key]))}
        case "name":
            return {**rest, draw(TEXT): sound[key]}
        case _:
            return rest


def short(value: Any) -> str:
    return ascii(value)[:12]


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def assert_fit_to_show(error: JobError) -> None:
    message = error.message
    assert len(message) <= MOST_CHARACTERS + len("...")
    assert message.isprintable(), ascii(message)
    assert SECRET not in message


WORKFLOW = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x"}, "_meta": {"t": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1], "n": 1.5}},
}
CLASSES = {
    "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {}], "n": ["FLOAT", {}]}}},
}
ARGUMENTS = {
    "workflow": WORKFLOW,
    "params": {"6.text": "a dog", "6.n": 2},
    "inputs": {"a.png": DATA_URL, "b.png": "s3://bucket/b.png"},
    "output": {
        "prefix": "shots/7",
        "presign_seconds": 60,
        "include_temp": True,
        "thumbnail": 64,
        "strip_metadata": True,
    },
    "timeout_seconds": 30,
    "metadata": {"customer": "7"},
}


class TestRequests:
    @hostile
    @given(arguments=drawn(st.dictionaries(TEXT, JSON) | spoilt(ARGUMENTS).filter(is_object)))
    def test_any_arguments(self, arguments: Drawn) -> None:
        try:
            request = parse_request((), arguments.value)
        except InvalidRequestError as error:
            assert_fit_to_show(error)
        else:
            # What comes back with the result can be stored, and what may be far is not for ever.
            TypeAdapter(dict[str, str]).dump_json({**request.metadata, **request.inputs})
            assert (request.timeout_seconds or 1) < float("inf")

    @hostile
    @given(positional=drawn(st.lists(JSON, min_size=1, max_size=3)))
    def test_any_positional_arguments(self, positional: Drawn) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            parse_request(positional.value, {})
        assert_fit_to_show(caught.value)

    @pytest.mark.parametrize("place", ["a", "a" * 70 + " ", "https://"], ids=short)
    @pytest.mark.parametrize(
        "secret", [DATA_URL, f"https://u:{SECRET}@h", f"https://h?s={SECRET}"], ids=short
    )
    def test_secrets_are_not_shown(self, place: str, secret: str) -> None:
        for arguments in (
            {"workflow": f"{place} {secret}"},
            {"workflow": {}, "inputs": {f"{place} {secret}": 5}},
            {"workflow": {}, "inputs": {"a.png": [{place: secret, secret: 1}]}},
            {"workflow": {}, f"{place} {secret}": 5},
        ):
            with pytest.raises(InvalidRequestError) as caught:
                parse_request((), arguments)
            assert_fit_to_show(caught.value)


class TestWorkflows:
    @hostile
    @given(workflow=drawn(st.dictionaries(TEXT, JSON) | spoilt(WORKFLOW)))
    def test_any_workflow(self, workflow: Drawn) -> None:
        self.check(workflow.value, {})

    @hostile
    @given(params=drawn(st.dictionaries(TEXT | st.sampled_from(["6.text", "6.clip", "4.n"]), JSON)))
    def test_any_params(self, params: Drawn) -> None:
        self.check(WORKFLOW, params.value)

    def check(self, workflow: Any, params: dict[str, Any]) -> None:
        try:
            request = parse_request((), {"workflow": workflow, "params": params})
            check_workflow(request.workflow)
            check_size(request.workflow, 10_000)
            staged = apply_params(request.workflow, request.params, CLASSES, "job")
        except (InvalidRequestError, InvalidWorkflowError) as error:
            assert_fit_to_show(error)
        else:
            # What is let through can be posted.
            json.dumps(staged, allow_nan=False, ensure_ascii=False).encode()

    @pytest.mark.parametrize("place", ["inputs", "_meta", "class_type"])
    @pytest.mark.parametrize(
        "value", [nested(900), nested(900, "a"), float("nan"), "\ud800", {"\ud800": 1}], ids=short
    )
    def test_what_cannot_be_posted_is_refused_wherever_it_is(self, place: str, value: Any) -> None:
        node = {"class_type": "A", "inputs": {}, place: {"x": value}}
        if place == "class_type":
            node["class_type"] = value
        with pytest.raises(InvalidWorkflowError) as caught:
            check_workflow({"1": node})
        assert_fit_to_show(caught.value)

    def test_links_in_a_circle_are_comfyuis_to_judge(self) -> None:
        circle = {n: {"class_type": "A", "inputs": {"x": [m, 0]}} for n, m in ("12", "21", "33")}
        check_workflow(circle)
        assert apply_params(circle, {}, {}, "job") == circle

    @pytest.mark.timeout(20)
    def test_the_work_grows_with_the_size_only(self) -> None:
        many = {f"i{n}": n for n in range(100_000)}
        wide = {"1": {"class_type": "A", "inputs": many}}
        check_workflow(wide)
        changed = apply_params(wide, {f"1.{name}": 0 for name in many}, {}, "job")
        assert set(changed["1"]["inputs"].values()) == {0}
        # Two long names of some hundred letters each: comparing them takes minutes.
        long = "".join(chr(0x4E00 + n * n % 331) for n in range(200_000))
        widest = {**wide, f"y{long}": wide["1"]}
        of_a = {"A": {"input": {"required": {name: ["INT", {}] for name in many}}}}
        for params in ({f"{long}x.a": 1}, {f"1.{long}": 1}, {"1.nearly": 1}, {"." * 200_000: 1}):
            with pytest.raises(InvalidWorkflowError):
                check_values(widest, params, of_a)


class TestHistory:
    ENTRIES = tuple(
        history_entry(version, scenario)
        for version in VERSIONS
        for scenario in ("success", "a node raises", "interrupt the running prompt", "preview node")
    )

    @hostile
    @given(data=st.data())
    def test_any_entry(self, data: st.DataObject) -> None:
        workflow, sound = data.draw(st.sampled_from(self.ENTRIES))
        any_entry = st.dictionaries(TEXT, JSON) | spoilt(sound).filter(is_object)
        entry = data.draw(drawn(any_entry)).value
        for failure in (failure_in(entry, workflow), overwritten(entry, include_temp=True)):
            if failure is not None:
                assert_fit_to_show(failure)
        values = TypeAdapter(dict[str, dict[str, Any]]).dump_json(shown_values(entry))
        json.dumps(json.loads(values), allow_nan=False)
        files = output_files(entry, include_temp=True)
        assert_safe_keys([(f.node_id, f.index, f.file.filename) for f in files])
        for file in files:
            TypeAdapter(list[str]).dump_json([file.node_id, file.kind, *vars(file.file).values()])

    @hostile
    @given(node=drawn(JSON), message=drawn(JSON), kind=drawn(JSON | st.just("a.OutOfMemoryError")))
    def test_any_failure_of_a_node(self, node: Drawn, message: Drawn, kind: Drawn) -> None:
        said = {
            "node_id": node.value,
            "exception_type": kind.value,
            "exception_message": message.value,
        }
        messages = [["execution_error", said]]
        failure = failure_in({"status": {"status_str": "error", "messages": messages}}, {})
        assert isinstance(failure, NodeFailedError | OutOfMemoryError)
        assert_fit_to_show(failure)

    def test_long_failures_keep_their_start(self) -> None:
        said = {
            "exception_type": "E" * 10**6,
            "exception_message": "m" * 10**6,
            "node_id": "n" * 999,
        }
        messages = [["execution_error", said]]
        failure = failure_in({"status": {"messages": messages}}, {})
        assert isinstance(failure, NodeFailedError)
        assert failure.message.startswith("node nnn")
        assert " raised EEE" in failure.message

    def test_what_is_shown_is_bounded(self) -> None:
        short = {"text": ["a cat"]}
        many = {str(n): {"text": ["x" * 1_000_000]} for n in range(50)}
        names = {"n" * 1_000_000 + str(n): short for n in range(50)}
        values = shown_values({"outputs": {"a": short, **many, **names, "b": short}})
        assert values["a"] == short
        assert values["49"] == {"text": "..."}
        assert len(json.dumps(values)) < 5_000_000

    def test_two_nodes_whose_ids_look_alike_share_no_key(self) -> None:
        outputs = {
            node_id: {"images": [{"filename": filename}]}
            for node_id, filename in (("\ud800", "a"), ("\ud801", "b"), ("?", "c"))
        }
        entry = {"outputs": outputs}
        files = output_files(entry, include_temp=False)
        assert {(f.node_id, f.index) for f in files} == {("?", 0), ("?", 1), ("?", 2)}


class TestMessages:
    WORKFLOW, _ = history_entry("0.8.0", "success")
    KINDS = (
        *("status", "execution_start", "execution_cached", "executing", "progress", "executed"),
        *("execution_success", "execution_error", "execution_interrupted", "progress_state"),
    )
    DATA = st.dictionaries(st.sampled_from(["node", "nodes", "value", "max"]) | TEXT, JSON)
    RECORDED = tuple(
        {"type": kind, "data": data}
        for version in VERSIONS
        for kind, data in websocket_messages(version, "success")
    )

    def assert_tellable(self, progress: PromptProgress, workflow: dict[str, Any]) -> None:
        share = progress.share(workflow)
        told = Progress(
            stage="executing",
            value=share,
            node_id=progress.node_id,
            step=progress.step,
            steps=progress.steps,
            instance="i",
        )
        assert len(told.model_dump_json()) < 10_000
        TypeAdapter(dict[str, float]).dump_json(dict(progress.node_seconds))

    @hostile
    @given(
        messages=drawn(st.lists(st.tuples(st.sampled_from(KINDS) | TEXT, DATA), max_size=8)),
        workflow=st.sampled_from([{}, WORKFLOW]),
    )
    def test_any_messages(self, messages: Drawn, workflow: dict[str, Any]) -> None:
        progress = PromptProgress()
        for now, (kind, data) in enumerate(messages.value):
            progress = fold(progress, kind, data, float(now))
            self.assert_tellable(progress, workflow)

    @pytest.mark.parametrize(
        "value", [10**400, -(10**400), 1e308, float("nan"), True, -1, [], "5"], ids=short
    )
    @pytest.mark.parametrize("most", [10**400, 1e-300, float("inf"), 0, -5, None, 7], ids=short)
    def test_any_numbers(self, value: Any, most: Any) -> None:
        progress = fold(PromptProgress(), "progress", {"value": value, "max": most}, 0.0)
        self.assert_tellable(progress, self.WORKFLOW)

    @pytest.mark.timeout(20)
    def test_what_is_kept_of_endless_messages_is_bounded(self) -> None:
        nodes = {"nodes": [str(n) for n in range(200_000)]}
        progress = fold(PromptProgress(), "execution_cached", nodes, 0.0)
        assert len(progress.done) <= 10_000
        progress = fold(progress, "executing", {"node": "x" * 10**6}, 0.0)
        assert progress.node_id is None

    @hostile
    @given(data=st.data())
    def test_any_bytes_on_the_websocket(self, data: st.DataObject) -> None:
        sound = data.draw(st.sampled_from(self.RECORDED))
        message = data.draw(drawn(JSON | spoilt(sound))).value
        raw = data.draw(st.binary() | st.just(json.dumps(message).encode()))
        self.dispatch(raw)

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"\xff\xfe",
            b"[" * 200_000,
            b'{"a":' * 200_000,
            b"1" * 5000,
            b'{"type": "status", "data": ' + b"[" * 200_000,
            b'{"type": "progress", "data": {"prompt_id": "p", "value": 1e999, "max": -1e999}}',
        ],
        ids=short,
    )
    def test_bytes_that_are_no_message(self, raw: bytes) -> None:
        self.dispatch(raw)

    def dispatch(self, raw: bytes) -> None:
        notifications = Notifications("http://gpu", "me")
        prompt_id = self.RECORDED[1]["data"].get("prompt_id", "p")
        announced: list[OutputFile] = []

        def on_output(node_id: str, output: Any) -> None:
            # As uploads read it: an error would end the listening.
            announced.extend(output_files({"outputs": {node_id: output}}, include_temp=True))

        with (
            notifications.subscribed("p", on_output) as one,
            notifications.subscribed(prompt_id, on_output) as other,
        ):
            notifications._dispatch(raw)
        for subscription in (one, other):
            self.assert_tellable(subscription.progress, self.WORKFLOW)
        assert_safe_keys([(f.node_id, f.index, f.file.filename) for f in announced])


class TestRejections:
    RECORDED = tuple(
        (sent["prompt"], answer)
        for version in VERSIONS
        for request, sent, answer in exchanges(version, "rejected prompts")
        if request == "POST /prompt"
        and isinstance(sent, dict)
        and isinstance(sent.get("prompt"), dict)
        and isinstance(answer, dict)
    )

    @hostile
    @given(data=st.data())
    def test_any_body(self, data: st.DataObject) -> None:
        workflow, sound = data.draw(st.sampled_from(self.RECORDED))
        body = data.draw(drawn(JSON | spoilt(sound))).value
        sentence = describe_rejection(workflow, body)
        assert sentence.startswith("ComfyUI refuses the workflow: ")
        assert len(sentence) <= 2 * MOST_CHARACTERS
        assert SECRET not in sentence
        sentence.encode()


class Answering(BaseAdapter):
    """Answers each request with the same bytes."""

    def __init__(self, status: int, body: bytes, media_type: str) -> None:
        super().__init__()
        self.status, self.body, self.media_type = status, body, media_type

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        response = requests.Response()
        response.status_code = self.status
        response.url = request.url or ""
        response.headers["Content-Type"] = self.media_type
        response.raw = HTTPResponse(BytesIO(self.body), preload_content=False)
        return response

    def close(self) -> None:
        """Nothing is open."""


CALLS: dict[str, tuple[Callable[[ComfyUI], Any], type | tuple[type, ...]]] = {
    "submit": (lambda c: c.submit(WORKFLOW, "p", "me"), type(None)),
    "history": (lambda c: c.history("p"), (dict, type(None))),
    "histories": (lambda c: c.histories(), dict),
    "queue": (lambda c: c.queue(), PromptQueue),
    "state_of": (lambda c: c.state_of("p"), PromptState),
    "cancel": (lambda c: c.cancel("p"), type(None)),
    "upload": (lambda c: c.upload_image("a", b"x"), FileRef),
    "has": (lambda c: c.has(FileRef("a", "b", "input")), bool),
    "models": (lambda c: c.models("m"), list),
    "features": (lambda c: c.features(), dict),
}
BODIES = {
    "history": {"p": {"prompt": [], "outputs": {}, "status": {}}},
    "queue": {"queue_running": [[0, "p", {}, {}, []]], "queue_pending": [[1, "q"]]},
    "upload": {"name": "a", "subfolder": "b", "type": "input"},
    "prompt": {"prompt_id": "p", "node_errors": {"6": {"errors": [{"message": "m"}]}}},
}


class TestAnswers:
    @hostile
    @given(data=st.data())
    @pytest.mark.parametrize("call", CALLS)
    def test_any_answer(self, call: str, data: st.DataObject) -> None:
        sound = data.draw(st.sampled_from(list(BODIES.values())))
        told = json.dumps(data.draw(drawn(JSON | spoilt(sound))).value).encode()
        body = data.draw(st.just(told) | st.binary())
        status = data.draw(st.sampled_from([200, 200, 200, *HTTPStatus]))
        media_type = data.draw(st.sampled_from(["application/json", "text/plain", "x" * 99, ""]))
        self.ask(call, int(status), body, media_type)

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize(
        "body", [b"[" * 200_000, b"1" * 5000, b"NaN", b"\xff\xfe\0\0"], ids=short
    )
    def test_json_that_no_decoder_takes(self, call: str, body: bytes) -> None:
        for status in (200, 400):
            self.ask(call, status, body, "application/json")

    def ask(self, call: str, status: int, body: bytes, media_type: str) -> None:
        method, kind = CALLS[call]
        with ComfyUI("http://gpu") as comfyui:
            comfyui._session.mount("http://", Answering(status, body, media_type))
            answer = self.outcome(method, comfyui)
        if isinstance(answer, JobError):
            assert SECRET not in answer.message
        else:
            assert isinstance(answer, kind)

    def outcome(self, method: Callable[[ComfyUI], Any], comfyui: ComfyUI) -> Any:
        try:
            return method(comfyui)
        except JobError as error:
            return error


ANY_NAME = st.text(st.characters(), max_size=6000) | st.sampled_from(ODD_TEXTS)
FILES = st.lists(st.tuples(ANY_NAME, st.integers(0, 9999), ANY_NAME), max_size=6)
# The longest that the request allows, of the letters that need most bytes.
LONG_PREFIX = "/".join(["€" * 34] * 5)[:170]


def assert_safe_keys(files: list[tuple[str, int, str]], job_id: str = "job") -> None:
    """Inside of the job's folder, of a fit length, printable, apart, and the same each time."""
    folder = job_folder("renders", LONG_PREFIX, job_id)
    keys: dict[tuple[str, int], str] = {}
    for node_id, index, filename in files:
        key = output_key(folder, 2, node_id, index, filename)
        assert key == output_key(folder, 2, node_id, index, filename)
        assert key.startswith(f"{folder}/2/")
        assert not {"", ".", ".."} & set(key.split("/"))
        assert key.count("/") == folder.count("/") + 3
        assert "\\" not in key
        assert key.isprintable()
        assert len(key.encode()) <= 1024
        keys.setdefault((node_id, index), key)
    assert len(set(keys.values())) == len(keys)
    assert manifest_key(folder) not in keys.values()


class TestKeys:
    @hostile
    @given(files=FILES, job_id=ANY_NAME)
    def test_any_names(self, files: list[tuple[str, int, str]], job_id: str) -> None:
        assert len(LONG_PREFIX.encode()) > 500
        assert JobRequest.model_validate({"workflow": {}, "output": {"prefix": LONG_PREFIX}})
        assert_safe_keys(files, job_id)

    @pytest.mark.parametrize("filename", ODD_TEXTS, ids=short)
    def test_odd_names(self, filename: str) -> None:
        assert_safe_keys([(node, 0, filename) for node in ODD_TEXTS])

    def test_no_node_can_be_named_as_the_digest_of_another(self) -> None:
        key = output_key("job", 1, "x" * 500, 0, "a")
        digest = key.split("/")[2]
        assert output_key("job", 1, digest, 0, "a") != key
        assert output_key("job", 1, digest.rpartition("=")[2], 0, "a") != key


def heads() -> Iterator[bytes]:
    for magic in puremagic.main.magic_header_array:
        yield magic.byte_match
        yield b"\xff" * magic.offset + magic.byte_match


class TestContentTypes:
    @hostile
    @given(head=st.sampled_from(list(heads())), rest=st.binary(max_size=200))
    def test_any_bytes_after_a_known_head(self, head: bytes, rest: bytes) -> None:
        media_type = content_type((head + rest)[:HEAD_BYTES])
        assert "/" in media_type
        assert media_type.isprintable()

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize(
        "head", [b"[" * HEAD_BYTES, b'{"a":' * 800, b"<?xml" + b" <" * 2000], ids=short
    )
    def test_text_made_to_be_slow(self, head: bytes) -> None:
        # The processor's time: whatever else the machine does.
        began = time.process_time()
        assert "/" in content_type(head)
        assert time.process_time() - began < 1
