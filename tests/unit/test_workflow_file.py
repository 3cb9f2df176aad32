"""Workflows in files: the forms of JSON, and the images of a real ComfyUI 0.3.64."""

import base64
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InvalidRequestError, InvalidWorkflowError
from tasks.request import parse_request
from tasks.workflow import check_workflow
from tasks.workflow_file import read_data_url, read_workflow
from tasks.workflow_form import is_export

IMAGES = Path(__file__).parents[1] / "fixtures" / "embedded"
NAMES = ("still.png", "moving.png", "moving.webp")
API = {"3": {"class_type": "KSampler", "inputs": {"seed": 7}}}
UI = {"nodes": [{"id": 3, "type": "KSampler"}], "links": [], "version": 0.4}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
IDAT, IEND = (b"IDAT", b"pixels"), (b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return SIGNATURE + b"".join(chunk(kind, data) for kind, data in chunks)


def text(name: str, value: object) -> tuple[bytes, bytes]:
    return b"tEXt", name.encode() + b"\0" + as_json(value)


def as_json(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def webp(exif: bytes) -> bytes:
    chunks = b"VP8L" + struct.pack("<I", 3) + b"abc\0" + b"EXIF" + struct.pack("<I", len(exif))
    return b"RIFF" + struct.pack("<I", len(chunks) + len(exif)) + b"WEBP" + chunks + exif


def exif(order: str, *texts: bytes) -> bytes:
    at = 8 + 2 + 12 * len(texts) + 4
    entries, contents = bytearray(), bytearray()
    for index, one in enumerate(texts):
        tag, place = (0x0110 - index) % 2**16, at + len(contents)
        entries += struct.pack(f"{order}HHII", tag, 2, len(one) + 1, place)
        contents += one + b"\0"
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    count = struct.pack(f"{order}H", len(texts))
    return head + count + entries + b"\0\0\0\0" + contents


def refusal(content: bytes) -> str:
    with pytest.raises(InvalidWorkflowError) as caught:
        read_workflow(content)
    assert "\n" not in caught.value.message
    return caught.value.message


# Images


@pytest.mark.parametrize("name", NAMES)
def test_what_a_real_server_has_saved(name: str) -> None:
    workflow = read_workflow(IMAGES / name)
    check_workflow(workflow)
    assert workflow["5"]["inputs"]["color"] == 3368703
    assert workflow["2"]["inputs"]["filename_prefix"] == "still é"
    # The server notes in it what it knows of the file that is loaded.
    assert workflow["6"].keys() == {"inputs", "class_type", "_meta"}
    assert read_workflow((IMAGES / name).read_bytes()) == workflow


@pytest.mark.parametrize("name", NAMES)
def test_what_the_ui_has_sent_along_is_there_as_well(name: str) -> None:
    content = (IMAGES / name).read_bytes()
    # Under another name the one that was executed is not found; checksums do not match any more.
    hidden = content.replace(b"prompt:", b"tpromp:").replace(b"prompt\0", b"tpromp\0")
    if name.endswith(".png"):
        hidden = with_checksums(hidden)
    export = read_workflow(hidden)
    assert is_export(export)
    assert [node["type"] for node in export["nodes"]][-2:] == [
        "SaveAnimatedWEBP",
        "SaveAnimatedPNG",
    ]


def with_checksums(content: bytes) -> bytes:
    at, chunks = len(SIGNATURE), []
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    return png(*chunks)


@pytest.mark.parametrize(
    "found",
    [
        text("prompt", API),
        (b"comf", b"prompt\0" + as_json(API)),
        (b"zTXt", b"prompt\0\0" + zlib.compress(as_json(API))),
        (b"iTXt", b"prompt\0\0\0en\0Aufforderung\0" + as_json(API)),
        (b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(as_json(API))),
    ],
    ids=["tEXt", "comf", "zTXt", "iTXt", "iTXt compressed"],
)
def test_each_kind_of_text_before_and_after_the_pixels(found: tuple[bytes, bytes]) -> None:
    long = text("parameters", b"x" * 1000)
    assert read_workflow(png(long, found, IDAT, IEND)) == API
    assert read_workflow(png(IDAT, long, found, IEND)) == API


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"], ids=["bare", "marked"])
def test_exif_of_both_byte_orders(order: str, prefix: bytes) -> None:
    texts = b"Workflow:" + as_json(UI), b"prompt:" + as_json(API)
    assert read_workflow(webp(prefix + exif(order, *texts))) == API
    assert read_workflow(webp(prefix + exif(order, texts[0]))) == UI


def test_what_was_executed_comes_before_what_was_drawn() -> None:
    assert read_workflow(png(text("workflow", UI), text("prompt", API), IEND)) == API
    # Other software has its prompts there, which are no workflows.
    for prompt in (b'"a cat"', b"a cat", b"[" * 100_000):
        assert read_workflow(png(text("workflow", UI), text("prompt", prompt), IEND)) == UI


def test_nan_is_read_where_the_server_notes_it_and_refused_where_it_is_a_value() -> None:
    noted = b'{"3": {"class_type": "KSampler", "inputs": {"seed": 7}, "is_changed": [NaN]}}'
    assert read_workflow(png(text("prompt", noted), IEND)) == API
    asked = read_workflow(png(text("prompt", noted.replace(b"7", b"NaN")), IEND))
    with pytest.raises(InvalidWorkflowError, match=r"node 3 \(KSampler\), input seed: found NaN"):
        check_workflow(asked)


def test_a_file_that_is_cut_off_after_its_workflow_is_read() -> None:
    whole = png(text("prompt", API), IDAT)
    assert read_workflow(whole[:-5]) == API


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            png(IDAT, IEND),
            "the PNG has no workflow embedded, neither as 'prompt' nor as 'workflow'",
        ),
        (webp(b""), "the WebP's EXIF data cannot be read"),
        (webp(exif("<", b"Canon")), "the WebP has no workflow embedded"),
        (webp(b"")[:20], "the WebP is cut off, and has no workflow before that"),
        (b"RIFF\0\0\0\0WEBP", "the WebP has no workflow embedded"),
        (SIGNATURE, "the PNG is cut off, and has no workflow before that"),
        (png(IDAT)[:-2], "the PNG is cut off, and has no workflow before that"),
        (png(text("prompt", API))[:-9], "the PNG is cut off in the middle of its workflow"),
        (png(text("prompt", API))[:-1] + b"\0", "does not match its checksum"),
        (png((b"zTXt", b"prompt\0\0zip")), "the 'prompt' in the PNG cannot be decompressed"),
        (png(text("prompt", b"{")), "the 'prompt' embedded in the PNG is no JSON"),
        (png(text("prompt", b"[" * 100_000)), "the 'prompt' embedded in the PNG is no JSON"),
        (png(text("prompt", b"9" * 5000)), "the 'prompt' embedded in the PNG is no JSON"),
        (png(text("prompt", b'"a cat"'), IEND), "the 'prompt' embedded in the PNG is no workflow"),
        (b"\xff\xd8\xff\xe0 a JPEG", "the workflow's file is no PNG, no WebP, and is no JSON"),
        (b"", "the workflow's file is no PNG, no WebP, and is no JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_is_said(content: bytes, sentence: str) -> None:
    assert sentence in refusal(content)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: png((b"zTXt", b"prompt\0\0" + zlib.compress(bytes(10**8)))),
            "decompresses to more",
        ),
        (lambda: SIGNATURE + b"\xff\xff\xff\xfftEXtprompt\0", "has more than 33,554,432 bytes"),
        (lambda: b"RIFF\0\0\0\0WEBPEXIF\xff\xff\xff\xff", "EXIF data has more than"),
        (lambda: as_json([0] * 1_000_001), "has more than 1,000,000 values"),
        (lambda: webp(exif("<", *[b"x"] * 60_000)), "no workflow embedded"),
        (lambda: bytes(33_600_000), "is no image, and has more than 33,554,432 bytes"),
    ],
    ids=["bomb", "long text", "long exif", "many values", "many tags", "no image"],
)
def test_nothing_is_taken_that_is_too_much(make: Callable[[], bytes], sentence: str) -> None:
    content = make()
    tracemalloc.start()
    try:
        assert sentence in refusal(content)
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()


@given(st.sampled_from(NAMES), st.integers(0, 4000), st.binary(max_size=9), st.integers(0, 4000))
@settings(max_examples=200, deadline=20_000)
def test_damaged_files_are_read_or_refused(name: str, at: int, part: bytes, end: int) -> None:
    content = (IMAGES / name).read_bytes()
    damaged = content[:at] + part + content[at + len(part) :]
    for one in (damaged, damaged[:end]):
        try:
            assert read_workflow(one)
        except InvalidWorkflowError as error:
            assert error.message  # noqa: PT017  # one of the two is to come


# JSON


@pytest.mark.parametrize(
    "value",
    [
        API,
        {"prompt": API, "client_id": "x"},
        {"prompt": API, "extra_data": {"extra_pnginfo": {"workflow": UI}}},
        {"workflow": UI, "output": API},
    ],
)
def test_api_format_as_people_have_it(value: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(value), encoding="utf-8-sig")
    assert read_workflow(file) == API
    assert parse_request((), {"workflow": value}).workflow == API


@pytest.mark.parametrize(
    "value", [UI, {"workflow": UI}, {"extra_data": {"extra_pnginfo": {"workflow": UI}}}]
)
def test_exports_as_people_have_them(value: dict[str, Any]) -> None:
    assert read_workflow(json.dumps(value).encode()) == UI
    assert parse_request((), {"workflow": value}).workflow == UI


def test_a_node_that_is_called_prompt_is_a_node() -> None:
    odd = {"prompt": {"class_type": "Text", "inputs": {}}, "workflow": UI}
    assert read_workflow(json.dumps(odd).encode())["prompt"]["class_type"] == "Text"


@pytest.mark.parametrize("value", [5, [], {}, {"prompt": "a cat"}, {"a": {"b": 1}}])
def test_json_without_a_workflow_is_refused(value: object) -> None:
    assert refusal(as_json(value)).endswith("is JSON, but there is no workflow in it")


# In a message


def test_a_data_url_is_read_as_the_file_that_it_is() -> None:
    still = read_workflow(IMAGES / "still.png")
    encoded = base64.b64encode((IMAGES / "still.png").read_bytes()).decode()
    for url in (f"data:image/png;base64,{encoded}", f"DATA:;BASE64,{encoded}"):
        assert parse_request((), {"workflow": url}).workflow == still
    assert read_data_url("data:," + json.dumps(API).replace("%", "%25")) == API


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("workflow.json", "'workflow': found 'workflow.json', expected a JSON object"),
        ("/etc/passwd", "expected a JSON object"),
        ("data:image/png;base64", "has no comma"),
        ("data:image/png;base64,x", "the workflow's data: URL cannot be decoded"),
        ("data:,\ud800", "the workflow's data: URL cannot be decoded"),
    ],
)
def test_another_string_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        parse_request((), {"workflow": url})
