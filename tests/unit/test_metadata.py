"""Files without their metadata: those of a real server, whole, in pieces, cut and damaged."""

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from tests.recordings import recorded_outputs
from workers.outputs.metadata import Stripping

RECORDED = {name: content for name, (_, content) in recorded_outputs().items()}
# What the workflow, in either form, cannot be without.
WORKFLOW = (b"class_type", b"SECRETWORKFLOW", b"prompt", b"PROMPT", b"workflow", b"WORKFLOW")


class Trickle:
    """A stream that gives less than asked for, as networks do."""

    def __init__(self, content: bytes, most: int) -> None:
        self._stream = BytesIO(content)
        self._most = most
        self.reads = 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        return self._stream.read(min(size, self._most))


def strip(content: bytes, *, given: int = 2**20, asked: int = 2**20) -> tuple[bytes, bool]:
    stripping = Stripping(Trickle(content, given))
    parts = list(iter(lambda: stripping.read(asked), b""))
    assert max(map(len, parts), default=0) <= asked
    return b"".join(parts), stripping.complete


def frames(content: bytes) -> list[tuple[bytes, Any]]:
    with Image.open(BytesIO(content)) as image:
        return [
            (frame.convert("RGBA").tobytes(), frame.info.get("duration"))
            for frame in ImageSequence.Iterator(image)
        ]


@pytest.mark.parametrize("name", RECORDED)
def test_no_workflow_is_left_in_what_a_server_made(name: str) -> None:
    content = RECORDED[name]
    assert any(word in content for word in WORKFLOW)
    stripped, complete = strip(content)
    assert [word for word in WORKFLOW if word in stripped] == []
    assert complete
    # Once more there is nothing to do.
    assert strip(stripped) == (stripped, True)


@pytest.mark.parametrize("name", ["SaveImage", "SaveAnimatedPNG", "SaveAnimatedWEBP"])
def test_a_picture_stays_what_it_was(name: str) -> None:
    assert frames(strip(RECORDED[name])[0]) == frames(RECORDED[name])
    assert len(frames(RECORDED[name])) == (1 if name == "SaveImage" else 2)


@pytest.mark.parametrize(
    "name",
    [
        *("SaveAnimatedWEBP", "SaveVideo", "SaveWEBM", "SaveLatent"),
        *("SaveAudio", "SaveAudioMP3", "SaveAudioOpus"),
    ],
)
def test_what_is_found_by_its_position_stays_where_it_is(name: str) -> None:
    content = RECORDED[name]
    stripped, _ = strip(content)
    assert len(stripped) == len(content)
    changed = [
        at for at, (old, new) in enumerate(zip(content, stripped, strict=True)) if old != new
    ]
    # Nothing before the metadata, and nothing behind it.
    first = min(content.find(word) for word in WORKFLOW if word in content)
    last = max(content.rfind(word) for word in WORKFLOW)
    assert changed[0] >= first - 200
    assert changed[-1] <= last + 300


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize(("given_at_once", "asked"), [(1, 2**20), (7, 5), (2**20, 1)])
def test_it_does_not_matter_in_what_pieces_a_file_comes(
    name: str, given_at_once: int, asked: int
) -> None:
    content = RECORDED[name]
    assert strip(content, given=given_at_once, asked=asked) == strip(content)


@pytest.mark.parametrize("name", RECORDED)
def test_a_file_that_is_cut_anywhere_passes(name: str) -> None:
    content = RECORDED[name]
    stripped, _ = strip(content)
    for end in range(0, len(content), max(1, len(content) // 150)):
        cut, _ = strip(content[:end])
        assert len(cut) <= end
    # It is not said to be clean, unless nothing tells that something is missing.
    tells = name not in ("SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "SaveLatent", "SaveGLB")
    assert strip(content[:-1])[1] is not tells
    assert stripped


@pytest.mark.parametrize("name", RECORDED)
def test_what_hangs_on_behind_a_file_stays_and_is_told_of(name: str) -> None:
    tail = b"?" * 20
    stripped, complete = strip(RECORDED[name] + tail)
    assert stripped.endswith(tail)
    endless = name in ("SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "SaveLatent", "SaveGLB")
    assert complete is endless


@given(
    name=st.sampled_from(sorted(RECORDED)),
    damage=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=9)), max_size=4
    ),
)
def test_damage_raises_nothing_and_makes_nothing_longer(
    name: str, damage: list[tuple[float, bytes]]
) -> None:
    content = bytearray(RECORDED[name])
    for place, some in damage:
        at = int(place * len(content))
        content[at : at + len(some)] = some
    stripped, _ = strip(bytes(content))
    assert len(stripped) <= len(content)


STARTS = [
    *(
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"RIFF\xff\0\0\0WEBP",
        b"RIFF\xff\0\0\0WAVE",
    ),
    *(
        b"\x1aE\xdf\xa3\x80",
        b"fLaC",
        b"OggS\0",
        b"glTF",
        b"\0\0\0\x08ftyp",
        b"ID3\4\0\0",
        b"\xff\xfb",
    ),
    *(b"\x10\0\0\0\0\0\0\0{", b""),
]


@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=300))
def test_any_bytes_pass(start: bytes, rest: bytes) -> None:
    content = start + rest
    stripped, complete = strip(content)
    assert len(stripped) <= len(content)
    assert stripped or complete or not content


def test_parts_of_a_few_bytes_come_together() -> None:
    blocks = b"\x01a" * 100_000
    content = b"GIF89a" + bytes(7) + b"\x2c" + bytes(9) + b"\x08" + blocks + b"\0;"
    stream = Trickle(content, 2**20)
    stripping = Stripping(stream)
    parts = list(iter(lambda: stripping.read(2**20), b""))
    assert (b"".join(parts), stripping.complete) == (content, True)
    assert len(parts) < 10
    assert stream.reads < 10


def test_an_error_of_the_stream_is_the_readers() -> None:
    class Broken(Trickle):
        def read(self, size: int) -> bytes:
            if not (part := super().read(size)):
                raise ConnectionResetError
            return part

    stripping = Stripping(Broken(RECORDED["SaveVideo"], 100))
    with pytest.raises(ConnectionResetError):
        list(iter(lambda: stripping.read(1000), b""))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a cat",
        b'{"a": 1}',
        b"<svg><metadata>x</metadata></svg>",
        b"BM\0\0",
        b"RIFF\0\0\0\0AVI ",
    ],
)
def test_what_cannot_be_stripped_passes_and_is_told_of(content: bytes) -> None:
    assert strip(content) == (content, False)
