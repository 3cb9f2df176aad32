from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.recordings import recorded_outputs
from workers.storage.content_type import HEAD_BYTES, content_type


def image(kind: str) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (image("PNG"), "image/png"),
        (image("JPEG"), "image/jpeg"),
        (image("GIF"), "image/gif"),
        (image("WEBP"), "image/webp"),
        (image("BMP"), "image/bmp"),
        (image("TIFF"), "image/tiff"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "video/mp4"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\x82\x84webmB\x87", "video/webm"),
        (b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0", "audio/wav"),
        (b"fLaC\0\0\0\x22\xff", "audio/flac"),
        (b"OggS\0\x02" + bytes(20) + b"\x01\x13OpusHead\x01", "audio/ogg"),
        (b"OggS\0\x02" + bytes(20) + b"\x01\x1e\x01vorbis\0", "audio/ogg"),
        (b"\0\0\0\x1cftypM4A \0\0\2\0M4A isomiso2", "audio/mp4"),
        (b"\xff\xfb\x90\x64\0\x0f\xf0\0", "audio/mpeg"),
        (b"ID3\x04\0\0\0\0\0#TSSE", "audio/mpeg"),
        (b"glTF\2\0\0\0\x10\0\0\0", "model/gltf-binary"),
        (b'{"asset": {}}', "application/json"),
        (b'{"asset": ' + b"1" * HEAD_BYTES, "application/json"),
        (b"[a cat, oil painting]", "text/plain; charset=utf-8"),
        (b"BMW on a road", "text/plain; charset=utf-8"),
        ("naïve café".encode(), "text/plain; charset=utf-8"),
        (("é" * HEAD_BYTES).encode()[: HEAD_BYTES - 1] + b"\xc3", "text/plain; charset=utf-8"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"),
        (b'<?xml version="1.0"?><svg/>', "image/svg+xml"),
        (b'\x40\0\0\0\0\0\0\0{"__metadata__":{}}', "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_media_types(head: bytes, media_type: str) -> None:
    assert content_type(head[:HEAD_BYTES]) == media_type


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("SaveImage", "image/png"),
        ("SaveAnimatedPNG", "image/png"),
        ("SaveAnimatedWEBP", "image/webp"),
        ("SaveVideo", "video/mp4"),
        ("SaveWEBM", "video/webm"),
        ("SaveLatent", "application/octet-stream"),
        ("SaveGLB", "model/gltf-binary"),
        ("SaveAudio", "audio/flac"),
        ("SaveAudioMP3", "audio/mpeg"),
        ("SaveAudioOpus", "audio/ogg"),
    ],
)
def test_the_media_types_of_what_a_server_makes(name: str, media_type: str) -> None:
    _, content = recorded_outputs()[name]
    assert content_type(content[:HEAD_BYTES]) == media_type


@given(st.binary(max_size=HEAD_BYTES))
def test_any_bytes_have_a_media_type(head: bytes) -> None:
    assert "/" in content_type(head)
