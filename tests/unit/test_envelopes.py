"""Message bodies that decompress to more than a process can hold, or to nothing."""

import bz2
import json
import lzma
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from kombu import compression, serialization
from kombu.exceptions import DecodeError
from kombu.message import Message

from workers.broker.envelopes import bound_decompression, read_plain_json

MOST = 10_000
MOST_VALUES = 1000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
}
# As producers name them.
ALIASES = {"zlib": "gzip", "gzip": "gzip", "bzip2": "bz2", "bzip": "bz2", "lzma": "lzma"}
NOISE = random.Random(1).randbytes(MOST)


@pytest.fixture(autouse=True)
def _kombus_own_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in ("_encoders", "_decoders", "_aliases"):
        monkeypatch.setattr(compression, registry, dict(getattr(compression, registry)))


@pytest.fixture
def _bound() -> None:
    bound_decompression(MOST)


each = pytest.mark.parametrize("name", COMPRESS)


@each
@pytest.mark.parametrize("content", [b"", b"x", NOISE, b"x" * MOST, b"x" * (MOST - 1)], ids=len)
@pytest.mark.usefixtures("_bound")
def test_what_is_not_too_large_is_what_it_was(name: str, content: bytes) -> None:
    assert compression.decompress(COMPRESS[name](content), name) == content


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.usefixtures("_bound")
def test_the_names_that_producers_use_mean_the_same(alias: str) -> None:
    body, name = compression.compress(b"a body", alias)
    assert name == f"application/x-{ALIASES[alias]}"
    assert compression.decompress(body, name) == compression.decompress(body, alias) == b"a body"
    with pytest.raises(ValueError, match="decompresses to more"):
        compression.decompress(compression.compress(b"x" * (MOST + 1), alias)[0], alias)


@each
@pytest.mark.parametrize("size", [MOST + 1, 100 * MOST])
@pytest.mark.usefixtures("_bound")
def test_what_is_too_large_is_refused(name: str, size: int) -> None:
    body = COMPRESS[name](b"x" * size)
    with pytest.raises(ValueError, match="decompresses to more than 10,000 bytes, or is cut off"):
        compression.decompress(body, name)


@each
@pytest.mark.usefixtures("_bound")
def test_a_bomb_is_not_blown_up_to_find_that_it_is_one(name: str) -> None:
    body = COMPRESS[name](bytes(20_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="decompresses to more"):
        compression.decompress(body, name)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # LZMA's own window has eight million.
    assert most < 10_000_000


@each
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9])
@pytest.mark.usefixtures("_bound")
def test_what_is_cut_off_is_refused(name: str, kept: float) -> None:
    body = COMPRESS[name](NOISE[:5000])
    with pytest.raises(ValueError, match="or is cut off"):
        compression.decompress(body[: int(kept * len(body))], name)


def message(name: str, body: bytes) -> Message:
    return Message(
        body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={"compression": name},
        accept={"application/json"},
    )


@each
@pytest.mark.usefixtures("_bound")
def test_a_message_that_is_sound_is_read(name: str) -> None:
    one = message(name, COMPRESS[name](b'{"a": 1}'))
    assert (one.errors, one.decode()) == ([], {"a": 1})


@each
@pytest.mark.parametrize(
    "body",
    [b"garbage" * 100, b'{"a": 1}', b"", NOISE],
    ids=lambda body: ascii(body[:8]),
)
@pytest.mark.usefixtures("_bound")
def test_a_message_of_garbage_is_an_error_for_whoever_reads_it(name: str, body: bytes) -> None:
    one = message(name, body)
    # Kombu's consumer has it refused, as it has the others that cannot be decoded.
    with pytest.raises((ValueError, zlib.error, OSError, lzma.LZMAError)):
        one._reraise_error()


@pytest.fixture
def _few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in ("_encoders", "_decoders", "type_to_name", "name_to_type"):
        known = getattr(serialization.registry, registry)
        monkeypatch.setattr(serialization.registry, registry, dict(known))
    read_plain_json(MOST_VALUES)


@pytest.mark.parametrize(
    "content",
    [
        [0] * (MOST_VALUES - 1),
        [{}] * (MOST_VALUES // 2 - 1),
        {"a": "x" * 100_000, "b": ["data:image/png;base64," + "A" * 100_000]},
        "a, b",
    ],
    ids=["list", "objects", "long strings", "a comma"],
)
@pytest.mark.usefixtures("_bound", "_few_values")
def test_a_body_with_not_too_many_values_is_read(content: object) -> None:
    body = json.dumps(content, separators=(",", ":"))
    for given in (body, body.encode(), memoryview(body.encode())):
        assert serialization.loads(given, "application/json", "utf-8") == content


@pytest.mark.parametrize("piece", ["{}", "[]", "0", '{"a":0}'])
@pytest.mark.usefixtures("_few_values")
def test_a_body_with_too_many_values_is_refused_before_they_are_made(piece: str) -> None:
    bound_decompression(100_000_000)
    body = f"[{','.join([piece] * 5_000_000)}]".encode()
    one = message("application/x-gzip", zlib.compress(body))
    tracemalloc.start()
    with pytest.raises(DecodeError, match="has more than 1,000 values"):
        one.decode()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * len(body)
