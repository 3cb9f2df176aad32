"""A file's one way through the worker."""

import errno
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from workers.outputs import NoThumbnailError, Passage, passage


def png(**options: Any) -> bytes:
    stream = BytesIO()
    Image.effect_noise((64, 64), 90).save(stream, "PNG", **options)
    return stream.getvalue()


def read(one: Passage) -> bytes:
    return b"".join(iter(lambda: one.stream.read(1000), b""))


def test_where_nothing_is_asked_for_the_stream_is_left_alone() -> None:
    stream = BytesIO(png())
    with Passage(stream, strip=False, thumbnail=None) as one:
        assert one.stream is stream
        read(one)
        assert (one.stripped, one.thumbnail()) == (None, None)


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("thumbnail", [None, 16])
def test_what_is_asked_for_is_done_in_one_reading(strip: bool, thumbnail: int | None) -> None:
    texts = PngInfo()
    texts.add_text("prompt", "a secret")
    with Passage(BytesIO(png(pnginfo=texts)), strip=strip, thumbnail=thumbnail) as one:
        stored = read(one)
        assert (b"a secret" in stored, one.stripped) == (not strip, True if strip else None)
        small = one.thumbnail()
    assert (small and (small.width, small.height)) == (thumbnail and (16, 16))


def test_what_is_no_picture_has_no_thumbnail_and_that_is_no_fault() -> None:
    with Passage(BytesIO(b"a cat"), strip=False, thumbnail=16) as one:
        assert read(one) == b"a cat"
        assert one.thumbnail() is None


def test_of_a_picture_that_is_too_large_the_file_is_stored_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = png()
    monkeypatch.setattr(passage, "MOST_COPIED_BYTES", len(content))
    with Passage(BytesIO(content), strip=False, thumbnail=16) as one:
        assert read(one) == content
        assert one.thumbnail()
    monkeypatch.setattr(passage, "MOST_COPIED_BYTES", len(content) - 1)
    with Passage(BytesIO(content), strip=False, thumbnail=16) as one:
        assert read(one) == content
        with pytest.raises(NoThumbnailError, match="it has more than"):
            one.thumbnail()


def test_of_a_copy_little_is_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "_IN_MEMORY_BYTES", 1000)
    with Passage(BytesIO(png()), strip=False, thumbnail=16) as one:
        read(one)
        assert one.thumbnail()


def test_where_there_is_no_room_for_a_copy_the_file_is_stored_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(passage, "_IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    content = png()
    with Passage(BytesIO(content), strip=False, thumbnail=16) as one:
        assert read(one) == content
        with pytest.raises(NoThumbnailError, match="it cannot be copied"):
            one.thumbnail()


@pytest.mark.parametrize("when", ["write", "seek"])
def test_where_the_room_for_a_copy_ends_the_file_is_stored_all_the_same(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class Full(BytesIO):
        """A file on a disk without space: who closes it tries to write what is left, too."""

        def close(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    setattr(Full, when, Full.close)
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda _: Full())
    content = png()
    with Passage(BytesIO(content), strip=False, thumbnail=16) as one:
        assert read(one) == content
        with pytest.raises(NoThumbnailError, match="it cannot be copied"):
            one.thumbnail()


def test_a_picture_that_cannot_be_read_is_stored_all_the_same() -> None:
    content = png()[:100]
    with Passage(BytesIO(content), strip=False, thumbnail=16) as one:
        assert read(one) == content
        with pytest.raises(NoThumbnailError):
            one.thumbnail()
