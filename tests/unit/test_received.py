"""A file that is received: how much of it, what it is, and what goes wrong on the way."""

import errno
from collections.abc import Iterator
from contextlib import closing

import pytest

from tasks.errors import InputUnavailableError, InvalidInputError
from workers.inputs.received import Received


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def received() -> Iterator[Received]:
    one = Received("input 'a'", 10)
    yield one
    one.close()


def test_what_comes_is_known_and_kept(received: Received) -> None:
    content = received.receive([b"{", b"}"], lambda: None)
    assert content.digest == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert content.media_type == "application/json"
    received.file.seek(0)
    assert received.file.read() == b"{}"


def test_no_more_is_taken_than_is_allowed(received: Received) -> None:
    pieces = iter([b"x" * 10, b"x", b"x"])
    with pytest.raises(InvalidInputError, match="^input 'a': has more than 10 bytes, at most 10"):
        received.receive(pieces, lambda: None)
    assert list(pieces) == [b"x"]


@pytest.mark.parametrize(("size", "allowed"), [(None, True), (10, True), (11, False)])
def test_what_is_announced_is_checked(received: Received, size: int | None, allowed: bool) -> None:
    if allowed:
        received.expect(size)
        return
    with pytest.raises(InvalidInputError, match="^input 'a': has 11 bytes, at most 10"):
        received.expect(size)


@pytest.mark.parametrize("when", ["write", "seek"])
def test_a_disk_that_is_full_may_have_space_later(
    received: Received, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(received.file, when, no_space)
    # What is left to be written is tried again.
    monkeypatch.setattr(received.file, "close", no_space)
    with (
        pytest.raises(InputUnavailableError, match=r"worker's disk \(No space left on device\)"),
        closing(received),
    ):
        received.receive([b"x"], lambda: None)
