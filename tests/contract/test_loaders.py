"""Nodes that read uploaded files: which names they take, which they list, what they refuse."""

import struct
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from .comfyui import ComfyUI, save, unique

pytestmark = pytest.mark.contract


def png(colour: Any, mode: str = "RGB") -> bytes:
    buffer = BytesIO()
    Image.new(mode, (16, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


# A quarter of a second of silence.
_FORMAT = struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
_SAMPLES = bytes(4000)
WAV = (
    b"RIFF" + struct.pack("<I", 36 + len(_SAMPLES)) + b"WAVEfmt " + _FORMAT
    + b"data" + struct.pack("<I", len(_SAMPLES)) + _SAMPLES
)  # fmt: skip
# Nobody opens it before somebody needs a frame.
MP4 = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"

# Class, input that names the file, the other inputs, a file's content and its extension, and how
# the node calls it.
LOADERS = {
    "LoadImage": ("image", {}, png((200, 100, 50)), "png", "image"),
    "LoadImageMask": ("image", {"channel": "red"}, png((200, 100, 50)), "png", "image"),
    "LoadImageOutput": ("image", {}, png((200, 100, 50)), "png", "image"),
    "LoadAudio": ("audio", {}, WAV, "wav", "audio"),
    "LoadVideo": ("file", {}, MP4, "mp4", "video"),
}
FLAGS = {
    "LoadImage": "image_upload",
    "LoadImageMask": "image_upload",
    "LoadImageOutput": "image_upload",
    "LoadAudio": "audio_upload",
    "LoadVideo": "video_upload",
}


def loading(class_type: str, name: str) -> dict[str, Any]:
    key, more, *_ = LOADERS[class_type]
    return {
        "1": {"class_type": class_type, "inputs": {key: name, **more}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


@pytest.fixture(params=LOADERS)
def loader(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("note", ["", " [input]"])
def test_a_file_in_a_subfolder_is_loaded(comfyui: ComfyUI, loader: str, note: str) -> None:
    _, _, content, extension, _ = LOADERS[loader]
    folder, name = f"comfyfleet/{unique()}/in", f"my \u00fc (1).{extension}"
    assert comfyui.upload(name, content, subfolder=folder).json()["name"] == name
    entry = comfyui.run(loading(loader, f"{folder}/{name}{note}"))
    assert entry["status"]["completed"]


@pytest.mark.parametrize("name", ["nope", "comfyfleet/nope", "nope [input]", "nope [output]"])
def test_a_file_that_is_not_there_is_refused(comfyui: ComfyUI, loader: str, name: str) -> None:
    key, _, _, _, media = LOADERS[loader]
    response = comfyui.post("/prompt", json={"prompt": loading(loader, name)})
    assert response.status_code == 400
    (error,) = response.json()["node_errors"]["1"]["errors"]
    assert error["type"] == "custom_validation_failed"
    assert error["details"] == f"{key} - Invalid {media} file: {name}"


def test_an_uploaded_file_is_not_in_the_input_folder_of_outputs(
    comfyui: ComfyUI, loader: str
) -> None:
    _, _, content, extension, _ = LOADERS[loader]
    name = f"{unique()}.{extension}"
    comfyui.upload(name, content)
    response = comfyui.post("/prompt", json={"prompt": loading(loader, f"{name} [output]")})
    assert response.status_code == 400


def test_a_loader_says_that_it_takes_uploads(comfyui: ComfyUI, loader: str) -> None:
    info = comfyui.get(f"/object_info/{loader}").json()[loader]
    config = info["input"]["required"][LOADERS[loader][0]]
    assert config[1][FLAGS[loader]] is True


@pytest.mark.parametrize(
    ("loader", "extensions"),
    [
        ("LoadImage", {"png"}),
        ("LoadImageMask", {"png", "wav", "mp4", "txt"}),
        ("LoadAudio", {"wav", "mp4"}),
        ("LoadVideo", {"mp4"}),
    ],
)
def test_what_a_loader_lists(comfyui: ComfyUI, loader: str, extensions: set[str]) -> None:
    stem = unique()
    for extension in ("png", "wav", "mp4", "txt"):
        comfyui.upload(f"{stem}.{extension}", b"x")
    key = LOADERS[loader][0]
    kind, options = comfyui.get(f"/object_info/{loader}").json()[loader]["input"]["required"][key]
    listed = options["options"] if kind == "COMBO" else kind
    found = {name.rpartition(".")[2] for name in listed if name.startswith(stem)}
    assert found == extensions


@pytest.mark.parametrize(
    ("channel", "grey"), [("red", 200), ("green", 100), ("blue", 50), ("alpha", 127)]
)
def test_a_mask_is_a_channel_and_alpha_upside_down(
    comfyui: ComfyUI, channel: str, grey: int
) -> None:
    name = f"{unique()}.png"
    comfyui.upload(name, png((200, 100, 50, 128), "RGBA"))
    workflow = {
        "1": {"class_type": "LoadImageMask", "inputs": {"image": name, "channel": channel}},
        "2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 0]}},
        "3": save("2"),
    }
    entry = comfyui.run(workflow, client_id="me")
    content = comfyui.get("/view", **entry["outputs"]["3"]["images"][0]).content
    with Image.open(BytesIO(content)) as image:
        # Real servers reckon in fractions.
        assert image.convert("L").getpixel((3, 3)) == pytest.approx(grey, abs=1)


def test_a_channel_that_there_is_none_of_is_refused(comfyui: ComfyUI) -> None:
    name = f"{unique()}.png"
    comfyui.upload(name, png((1, 2, 3)))
    workflow = loading("LoadImageMask", name)
    workflow["1"]["inputs"]["channel"] = "black"
    response = comfyui.post("/prompt", json={"prompt": workflow})
    (error,) = response.json()["node_errors"]["1"]["errors"]
    assert error["type"] == "value_not_in_list"


def test_a_picture_has_no_sound(comfyui: ComfyUI) -> None:
    name = f"{unique()}.png"
    comfyui.upload(name, png((1, 2, 3)))
    entry = comfyui.run(loading("LoadAudio", name))
    (error,) = [told for kind, told in entry["status"]["messages"] if kind == "execution_error"]
    assert error["exception_type"] == "ValueError"
    assert error["exception_message"].strip() == "No audio stream found in the file."
