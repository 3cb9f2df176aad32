"""Input files: where they come from, where they are placed, and how the workflow finds them."""

import base64
import hashlib
import json
import uuid
from io import BytesIO

import pytest
from PIL import Image

from tests.stack import Client, Workflow

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running_worker")]


def png(colour: str) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (24, 16), colour).save(stream, "PNG")
    return stream.getvalue()


def data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def passed_on(image: str) -> Workflow:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "passed"},
        },
    }


def colour_of(client: Client, result: dict) -> tuple[tuple[int, int], tuple[int, ...]]:
    with Image.open(BytesIO(client.content(result["outputs"][0]["key"]))) as image:
        return image.size, image.convert("RGB").getpixel((3, 3))


def test_a_data_url_is_placed_and_used(client: Client) -> None:
    result = client.run(passed_on("photo.png"), inputs={"photo.png": data_url(png("#ff0000"))})
    assert colour_of(client, result) == ((24, 16), (255, 0, 0))


def test_an_object_of_the_workers_bucket(client: Client) -> None:
    key = f"sources/{uuid.uuid4()} ü.png"
    client.s3.put_object(Bucket=client.bucket, Key=key, Body=png("#00ff00"))
    inputs = {"photo.png": f"s3://{client.bucket}/{key}"}
    assert colour_of(client, client.run(passed_on("photo.png"), inputs=inputs))[1] == (0, 255, 0)


def test_two_jobs_with_the_same_name_do_not_meet(client: Client) -> None:
    colours = {"#ff0000": (255, 0, 0), "#0000ff": (0, 0, 255)}
    jobs = {
        colour: client.send(passed_on("photo.png"), inputs={"photo.png": data_url(png(colour))})
        for colour in colours
    }
    for colour, job in jobs.items():
        assert colour_of(client, job.get(timeout=30))[1] == colours[colour]


def test_a_name_with_a_folder(client: Client) -> None:
    result = client.run(passed_on("in/a.png"), inputs={"in/a.png": data_url(png("#ff0000"))})
    assert colour_of(client, result)[1] == (255, 0, 0)


@pytest.mark.parametrize("name", ["../a.png", "a\0.png", "/a.png", ".", "x" * 300])
def test_a_name_that_is_none(client: Client, name: str) -> None:
    error = client.failure(passed_on(name), inputs={name: "data:,x"})
    assert type(error).__name__ == "InvalidInputError"
    assert "is no name of a file" in str(error)


def test_what_a_node_cannot_load_is_not_placed(client: Client, seed: int) -> None:
    error = client.failure(passed_on("a.png"), inputs={"a.png": f"data:,hello%20{seed}"})
    assert type(error).__name__ == "InvalidInputError"
    assert str(error) == (
        "input 'a.png': node 1 (LoadImage) loads an image, found text/plain; charset=utf-8"
    )


@pytest.mark.parametrize(
    ("name", "source", "sentence"),
    [
        ("../a.png", "data:,x", "input '../a.png': no node of the workflow has it as a value"),
        ("b.png", "data:,x", "input 'b.png': no node of the workflow has it as a value"),
        ("a.png", "data:;base64,%%%", "input 'a.png': the data: URL is no valid base64"),
        ("a.png", "data:image/png", "input 'a.png': the data: URL has no comma before its data"),
        ("a.png", "ftp://x/a.png", "input 'a.png': expected an https://, s3:// or data: URL, "),
        (
            "a.png",
            "a.png",
            "expected an https://, s3:// or data: URL, found 'a.png'",
        ),
        ("a.png", "s3://other/a.png", "found bucket 'other', expected comfyui (INPUT_BUCKETS"),
        ("a.png", "s3://comfyui/none.png", "input 'a.png': there is no object s3://comfyui/none"),
        ("a.png", "s3://comfyui/" + "k" * 1100, "there is no object s3://comfyui/kkk"),
        ("a.png", "http://[", "http://[ is no valid URL"),
        ("a.png", "s3://comfyui", "there is no object s3://comfyui"),
    ],
)
def test_an_input_that_cannot_be_had_is_named(
    client: Client, name: str, source: str, sentence: str
) -> None:
    error = client.failure(passed_on("a.png"), inputs={name: source})
    assert type(error).__name__ == "InvalidInputError"
    assert sentence in str(error)


def test_too_large_inputs_are_refused(client: Client, stack) -> None:
    broker = stack.valkey.url.replace("/0", "/3")
    own = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}
    worker = stack.worker(settings={**own, "INPUT_MAX_BYTES": "5000"})
    producer = Client({**stack.environment(), **own})
    producer.s3.put_object(Bucket=client.bucket, Key="large", Body=b"x" * 5001)
    for source in (data_url(b"x" * 5001), f"s3://{client.bucket}/large"):
        error = producer.failure(passed_on("a.png"), inputs={"a.png": source})
        assert "has 5,001 bytes, at most 5,000 are allowed (INPUT_MAX_BYTES)" in str(error)
    producer.close()
    worker.stop()


def test_the_placed_name_is_in_the_folder_of_its_content(client: Client) -> None:
    content = png("#123456")
    result = client.run(passed_on("photo.png"), inputs={"photo.png": data_url(content)})
    stored = client.content(result["outputs"][0]["key"])
    with Image.open(BytesIO(stored)) as image:
        prompt = json.loads(image.info["prompt"])
    assert prompt["1"]["inputs"]["image"] == (
        f"comfyfleet/{hashlib.sha256(content).hexdigest()}/photo.png"
    )
    assert hashlib.sha256(stored).hexdigest() == result["outputs"][0]["sha256"]
