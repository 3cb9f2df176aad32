"""What loaders can load, told by content, with contents as they begin."""

from io import BytesIO

import pytest
from PIL import Image

from tasks.errors import InvalidInputError
from workers.inputs.kinds import check_kind
from workers.storage.content_type import content_type


def picture(kind: str, **options: object) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind, **options)
    return stream.getvalue()


def container(brand: bytes) -> bytes:
    return b"\0\0\0\x20ftyp" + brand + b"\0\0\2\0" + brand + b"iso2avc1mp41" + b"\0" * 100


IMAGES = {kind: picture(kind) for kind in ("PNG", "JPEG", "BMP", "TIFF")}
ANIMATIONS = {
    kind: picture(kind, save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    for kind in ("GIF", "WEBP")
}
SOUNDS = {
    "WAV": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + b"\0" * 24,
    "FLAC": b"fLaC\0\0\0\x22" + b"\0" * 40,
    "MP3": b"ID3\4\0\0\0\0\0\x23" + b"\0" * 40,
}
VIDEOS = {
    "MP4": container(b"isom"),
    "MOV": container(b"qt  "),
    "MKV": b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x23B\x86\x81\1B\x82\x88matroska" + b"\0" * 40,
    "AVI": b"RIFF\x24\0\0\0AVI LIST" + b"\0" * 40,
    "OGG": b"OggS\0\2" + b"\xff" * 40,
}
OTHERS = {
    "text": b"a cat, sitting",
    "HTML": b"<!doctype html><html><body>404</body></html>",
    "JSON": b'{"error": "denied"}',
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"\0" * 40,
    "ZIP": b"PK\3\4\x14\0\0\0\x08\0" + b"\0" * 40,
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
}

FIT = {
    "LoadImage": IMAGES | ANIMATIONS,
    "LoadImageMask": IMAGES,
    "LoadImageOutput": IMAGES,
    "LoadAudio": SOUNDS | VIDEOS,
    "VHS_LoadAudio": SOUNDS,
    "LoadVideo": VIDEOS | ANIMATIONS,
    "VHS_LoadVideo": VIDEOS | ANIMATIONS,
    "SomethingElse": IMAGES | SOUNDS | VIDEOS | OTHERS,
}
UNFIT = {
    "LoadImage": SOUNDS | VIDEOS | OTHERS,
    "LoadImageMask": SOUNDS | OTHERS,
    "LoadImageOutput": VIDEOS,
    "LoadAudio": IMAGES | ANIMATIONS | OTHERS,
    "VHS_LoadAudio": IMAGES,
    "LoadVideo": SOUNDS | OTHERS | {"JPEG": IMAGES["JPEG"]},
    "VHS_LoadVideo": SOUNDS | OTHERS,
}


def rows(table: dict[str, dict[str, bytes]]) -> list:
    return [
        pytest.param(loader, content, id=f"{loader} {kind}")
        for loader, contents in table.items()
        for kind, content in contents.items()
    ]


def check(loader: str, media_type: str) -> None:
    workflow = {"7": {"class_type": loader, "inputs": {"x": "a"}}}
    check_kind("a", media_type, workflow, ["7"])


@pytest.mark.parametrize(("loader", "content"), rows(FIT))
def test_what_fits(loader: str, content: bytes) -> None:
    check(loader, content_type(content))


@pytest.mark.parametrize(("loader", "content"), rows(UNFIT))
def test_what_does_not(loader: str, content: bytes) -> None:
    with pytest.raises(InvalidInputError, match=rf"^input 'a': node 7 \({loader}\) loads an?"):
        check(loader, content_type(content))


def test_what_nobody_knows_is_the_loaders_to_judge() -> None:
    check("LoadImage", content_type(b"\x00\x01\x02\xff"))


def test_each_node_that_uses_a_file_has_its_say() -> None:
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a"}},
        "2": {"class_type": "LoadAudio", "inputs": {"audio": "a"}},
    }
    with pytest.raises(InvalidInputError) as caught:
        check_kind("a", "image/png", workflow, ["1", "2"])
    assert caught.value.message == (
        "input 'a': node 2 (LoadAudio) loads audio or video, found image/png"
    )
