"""Uploads, views and the files that output nodes write."""

import json
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from .comfyui import ComfyUI, bars, bars_and_save, colour, save, show, unique

pytestmark = pytest.mark.contract


def png(colour: tuple[int, ...], mode: str = "RGB") -> bytes:
    buffer = BytesIO()
    Image.new(mode, (16, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


@pytest.fixture(scope="module")
def picture(comfyui: ComfyUI) -> dict[str, str]:
    """A saved picture as its node names it."""
    entry = comfyui.run(bars_and_save(unique("views/")), client_id="me")
    return dict(entry["outputs"]["2"]["images"][0])


RED, GREEN, BLUE = png((200, 0, 0)), png((0, 200, 0)), png((0, 0, 200))


def test_file_names_count_upwards_in_the_subfolder_of_the_prefix(comfyui: ComfyUI) -> None:
    stem = unique()
    first, second = (
        comfyui.run({"1": colour(batch_size=2), "2": save("1", f"a/b/{stem}")}) for _ in range(2)
    )
    assert first["outputs"]["2"]["images"] == [
        {"filename": f"{stem}_{number:05}_.png", "subfolder": "a/b", "type": "output"}
        for number in (1, 2)
    ]
    names = [image["filename"] for image in second["outputs"]["2"]["images"]]
    assert names == [f"{stem}_00003_.png", f"{stem}_00004_.png"]


def test_highest_number_counts_whatever_the_extension(comfyui: ComfyUI) -> None:
    stem = unique()
    for name in (f"{stem}_00020_.txt", f"{stem}_other_00030_.png"):
        comfyui.upload(name, b"x", type="output")
    entry = comfyui.run({"1": colour(), "2": save("1", stem)})
    assert entry["outputs"]["2"]["images"][0]["filename"] == f"{stem}_00021_.png"


def test_png_has_the_size_that_was_asked_for_and_the_prompt_inside(comfyui: ComfyUI) -> None:
    workflow = {"1": bars(width=72, height=40), "2": save("1")}
    extra_data: Any = {"extra_pnginfo": {"workflow": {"nodes": []}}}
    entry = comfyui.run(workflow, extra_data=extra_data, client_id="me")
    image = opened(comfyui.get("/view", **entry["outputs"]["2"]["images"][0]).content)
    assert (image.format, image.size) == ("PNG", (72, 40))
    assert json.loads(image.info["prompt"]) == workflow
    assert json.loads(image.info["workflow"]) == {"nodes": []}


def test_preview_is_a_temp_file(comfyui: ComfyUI) -> None:
    preview = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    entry = comfyui.run({"1": colour(), "2": preview}, client_id="me")
    (image,) = entry["outputs"]["2"]["images"]
    assert image["type"] == "temp"
    assert image["filename"].startswith("ComfyUI_temp_")
    assert comfyui.get("/view", **image).headers["content-type"] == "image/png"
    assert comfyui.get("/view", filename=image["filename"]).status_code == 404, "no output"


@pytest.mark.parametrize(
    ("value", "text"),
    [("hello", "hello"), (3, "3"), (1.5, "1.5"), (True, "True"), ({"a": [1]}, '{"a": [1]}')],
)
def test_text_is_an_output_without_a_file(comfyui: ComfyUI, value: Any, text: str) -> None:
    assert comfyui.run({"1": show(value)})["outputs"] == {"1": {"text": [text]}}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_animation_is_an_image_marked_as_animated_with_the_prompt_inside(
    comfyui: ComfyUI, batch_size: int
) -> None:
    inputs = {"images": ["1", 0], "filename_prefix": f"anim/{unique()}", "fps": 6.0}
    inputs |= {"lossless": True, "quality": 80, "method": "default"}
    node = {"class_type": "SaveAnimatedWEBP", "inputs": inputs}
    workflow = {"1": bars(batch_size=batch_size), "2": node}
    extra_data: Any = {"extra_pnginfo": {"workflow": {"nodes": []}}}
    entry = comfyui.run(workflow, extra_data=extra_data, client_id="me")
    output = entry["outputs"]["2"]
    assert output["animated"] == [batch_size > 1]
    (image,) = output["images"]
    assert (image["subfolder"], image["type"]) == ("anim", "output")
    response = comfyui.get("/view", **image)
    assert response.headers["content-type"] == "image/webp"
    image_file = opened(response.content)
    assert getattr(image_file, "n_frames", 1) == batch_size
    assert f"prompt:{json.dumps(workflow)}" == image_file.getexif()[0x0110]
    assert image_file.getexif()[0x010F] == 'workflow:{"nodes": []}'


def test_view_names_the_file_and_serves_parts_of_it(
    comfyui: ComfyUI, picture: dict[str, str]
) -> None:
    whole = comfyui.get("/view", **picture)
    assert whole.headers["content-disposition"] == f'filename="{picture["filename"]}"'
    assert int(whole.headers["content-length"]) == len(whole.content)
    part = comfyui.http.get(
        f"{comfyui.url}/view", params=picture, headers={"Range": "bytes=2-5"}, timeout=10
    )
    assert (part.status_code, part.content) == (206, whole.content[2:6])


@pytest.mark.parametrize(
    ("preview", "content_type"),
    [("webp;50", "image/webp"), ("jpeg", "image/jpeg"), ("nonsense;x", "image/webp")],
)
def test_view_can_be_a_preview(
    comfyui: ComfyUI, picture: dict[str, str], preview: str, content_type: str
) -> None:
    response = comfyui.get("/view", **picture, preview=preview)
    assert response.headers["content-type"] == content_type
    assert opened(response.content).size == (64, 48)


@pytest.mark.parametrize(("channel", "mode"), [("rgb", "RGB"), ("a", "RGBA"), ("rgba", "RGB")])
def test_view_can_be_one_channel(
    comfyui: ComfyUI, picture: dict[str, str], channel: str, mode: str
) -> None:
    image = opened(comfyui.get("/view", **picture, channel=channel).content)
    assert (image.format, image.mode) == ("PNG", mode)


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 404),
        ({"filename": "nope.png"}, 404),
        ({"filename": "nope.png", "subfolder": "nope"}, 404),
        ({"filename": ""}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "../x.png"}, 400),
        ({"filename": "x.png", "type": "nope"}, 400),
        ({"filename": "x.png", "subfolder": "../.."}, 403),
        ({"filename": "x.png", "subfolder": "/etc"}, 403),
    ],
)
def test_view_of_what_is_not_there(comfyui: ComfyUI, params: dict[str, str], status: int) -> None:
    response = comfyui.get("/view", **params)
    assert (response.status_code, response.content) == (status, b"")
    assert "content-type" not in response.headers


@pytest.mark.parametrize(
    ("extension", "content_type"),
    [
        ("txt", "text/plain"),
        ("json", "application/json"),
        ("mp4", "video/mp4"),
        ("gif", "image/gif"),
        ("html", "application/octet-stream"),
        ("css", "application/octet-stream"),
        ("latent", "application/octet-stream"),
    ],
)
def test_view_tells_the_type_by_the_name_but_nothing_that_a_browser_would_run(
    comfyui: ComfyUI, extension: str, content_type: str
) -> None:
    name = f"{unique()}.{extension}"
    comfyui.upload(name, b"x", type="output")
    assert comfyui.get("/view", filename=name).headers["content-type"] == content_type
    noted = comfyui.get("/view", filename=f"{name} [output]", type="input")
    assert noted.status_code == 200, "a note in the name wins over the type"


def test_same_content_under_the_same_name_is_one_file(comfyui: ComfyUI) -> None:
    name = f"{unique()}.png"
    answers = [comfyui.upload(name, RED).json() for _ in range(2)]
    assert answers == [{"name": name, "subfolder": "", "type": "input"}] * 2


def test_other_content_under_the_same_name_is_renamed(comfyui: ComfyUI) -> None:
    stem = unique()
    names = [
        comfyui.upload(f"{stem}.tar.png", content).json()["name"]
        for content in (RED, GREEN, GREEN, BLUE, RED)
    ]
    assert names == [
        f"{stem}.tar.png",
        f"{stem}.tar (1).png",
        f"{stem}.tar (1).png",
        f"{stem}.tar (2).png",
        f"{stem}.tar.png",
    ]


@pytest.mark.parametrize("overwrite", ["true", "1"])
def test_upload_may_overwrite(comfyui: ComfyUI, overwrite: str) -> None:
    name = f"{unique()}.png"
    comfyui.upload(name, RED)
    assert comfyui.upload(name, BLUE, overwrite=overwrite).json()["name"] == name
    assert comfyui.get("/view", filename=name, type="input").content == BLUE


@pytest.mark.parametrize("kind", ["input", "output", "temp"])
def test_upload_into_a_subfolder_of_any_type(comfyui: ComfyUI, kind: str) -> None:
    placed = {"filename": f"{unique()}.png", "subfolder": "up/load", "type": kind}
    answer = comfyui.upload(placed["filename"], RED, subfolder="up/load", type=kind)
    assert answer.json() == {"name": placed["filename"], "subfolder": "up/load", "type": kind}
    assert comfyui.get("/view", **placed).content == RED


@pytest.mark.parametrize(
    ("name", "subfolder"), [("../x.png", ""), ("x.png", "../../x"), ("x.png", "/x")]
)
def test_upload_cannot_escape(comfyui: ComfyUI, name: str, subfolder: str) -> None:
    response = comfyui.upload(name, RED, subfolder=subfolder)
    assert (response.status_code, response.content) == (400, b"")


def test_upload_without_an_image_is_refused(comfyui: ComfyUI) -> None:
    response = comfyui.post("/upload/image", files={"other": ("x.png", RED)})
    assert response.status_code == 400


def mask(comfyui: ComfyUI, name: str, original: dict[str, str]) -> Any:
    cover = png((0, 0, 0, 128), "RGBA")
    return comfyui.post(
        "/upload/mask",
        files={"image": (name, cover)},
        data={"original_ref": json.dumps(original), "subfolder": "clipspace"},
    )


def test_mask_becomes_the_transparency_of_its_original(comfyui: ComfyUI) -> None:
    original, name = f"{unique()}.png", f"{unique()}.png"
    comfyui.upload(original, RED)
    answer = mask(comfyui, name, {"filename": original, "type": "input"})
    assert answer.json() == {"name": name, "subfolder": "clipspace", "type": "input"}
    masked = comfyui.get("/view", filename=name, subfolder="clipspace", type="input")
    assert opened(masked.content).getpixel((0, 0)) == (200, 0, 0, 128)


def test_mask_for_an_original_that_is_not_there_is_accepted_and_lost(comfyui: ComfyUI) -> None:
    name = f"{unique()}.png"
    assert mask(comfyui, name, {"filename": "nope.png", "type": "input"}).json()["name"] == name
    lost = comfyui.get("/view", filename=name, subfolder="clipspace", type="input")
    assert lost.status_code == 404


def test_uploaded_image_is_listed_and_loaded(comfyui: ComfyUI) -> None:
    name = f"{unique()}.png"
    comfyui.upload(name, GREEN)
    (choices, _) = comfyui.get("/object_info/LoadImage").json()["LoadImage"]["input"]["required"][
        "image"
    ]
    assert name in choices
    load = {"class_type": "LoadImage", "inputs": {"image": name}}
    entry = comfyui.run({"1": load, "2": save("1")}, client_id="me")
    image = opened(comfyui.get("/view", **entry["outputs"]["2"]["images"][0]).content)
    assert (image.size, image.getpixel((3, 3))) == ((16, 8), (0, 200, 0))


def test_image_in_a_subfolder_is_loaded_though_not_listed(comfyui: ComfyUI) -> None:
    name = f"{unique()}.png"
    comfyui.upload(name, GREEN, subfolder="job")
    load = {"class_type": "LoadImage", "inputs": {"image": f"job/{name}"}}
    assert comfyui.run({"1": load, "2": save("1")})["status"]["completed"]


def test_image_that_is_not_there_is_refused(comfyui: ComfyUI) -> None:
    load = {"class_type": "LoadImage", "inputs": {"image": "nope.png"}}
    response = comfyui.post("/prompt", json={"prompt": {"1": load, "2": save("1")}})
    (error,) = response.json()["node_errors"]["1"]["errors"]
    assert error["type"] == "custom_validation_failed"
    assert error["details"] == "image - Invalid image file: nope.png"
