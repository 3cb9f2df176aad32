"""Input files: where they come from, where they are placed, and how the workflow finds them."""

import base64
import gzip
import hashlib
import json
import uuid
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import pytest
from PIL import Image

from sandbox.processes import ChildProcess
from tests.stack import Client, Stack, Workflow

from .hosts import Asked, Host

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


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/a.png",
        "https://localhost:8188/view?filename=a.png",
        "https://2130706433/a.png",
        "https://0x7f000001/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/",
        "https://user:secret@127.0.0.1/a.png?secret",
    ],
)
def test_no_way_in(client: Client, url: str) -> None:
    error = client.failure(passed_on("a.png"), inputs={"a.png": url})
    assert type(error).__name__ == "InvalidInputError"
    assert "secret" not in str(error)


class Opened(NamedTuple):
    """A worker whose operator has opened a host and a bucket, and a producer for it."""

    producer: Client
    worker: ChildProcess
    host: Host
    bucket: str


@pytest.fixture(scope="module")
def opened(stack: Stack) -> Iterator[Opened]:
    broker = stack.valkey.url.replace("/0", "/3")
    own = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}
    settings = {
        **own,
        "INPUT_MAX_BYTES": "5000",
        "INPUT_BUCKETS": "other",
        "INPUT_ALLOW_HOSTS": "127.0.0.1",
        # Nothing of it is asked.
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    worker = stack.worker(settings=settings)
    producer = Client({**stack.environment(), **own})
    producer.s3.create_bucket(Bucket="other")
    with Host(tls=False) as host:
        yield Opened(producer, worker, host, "other")
    producer.close()
    worker.stop()


def test_too_large_inputs_are_refused(opened: Opened) -> None:
    producer, _, host, bucket = opened
    producer.s3.put_object(Bucket=bucket, Key="large", Body=b"x" * 5001)
    host.paths["/large"] = lambda asked: asked.answer(b"x" * 5001)
    sources = (data_url(b"x" * 5001), f"s3://{bucket}/large", host.url("/large", "127.0.0.1"))
    for source in sources:
        error = producer.failure(passed_on("a.png"), inputs={"a.png": source})
        assert "has 5,001 bytes, at most 5,000 are allowed (INPUT_MAX_BYTES)" in str(error)


def test_what_says_nothing_of_its_size_is_refused_when_it_is_too_large(opened: Opened) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    bomb = gzip.compress(b"x" * 100_000)
    opened.host.paths["/bomb"] = lambda asked: asked.send(head + bomb)
    source = opened.host.url("/bomb", "127.0.0.1")
    error = opened.producer.failure(passed_on("a.png"), inputs={"a.png": source})
    assert "has more than 5,000 bytes, at most 5,000 are allowed (INPUT_MAX_BYTES)" in str(error)


def test_an_object_of_another_bucket(opened: Opened) -> None:
    opened.producer.s3.put_object(Bucket=opened.bucket, Key="a.png", Body=png("#00ff00"))
    result = opened.producer.run(
        passed_on("a.png"), inputs={"a.png": f"s3://{opened.bucket}/a.png"}
    )
    assert colour_of(opened.producer, result)[1] == (0, 255, 0)


def test_a_file_of_the_web_comes_once_and_by_a_redirect(opened: Opened) -> None:
    content = png("#0000ff")

    def show(asked: Asked) -> None:
        if asked.headers.get("if-none-match") == '"1"':
            asked.answer(status="304 Not Modified")
        else:
            asked.answer(content, ETag='"1"')

    opened.host.paths["/old.png"] = lambda asked: asked.redirect("/new.png")
    opened.host.paths["/new.png"] = show
    source = opened.host.url("/old.png?signature=x", "127.0.0.1")
    for _ in range(2):
        result = opened.producer.run(passed_on("a.png"), inputs={"a.png": source})
        assert colour_of(opened.producer, result)[1] == (0, 0, 255)
    tags = [a.headers.get("if-none-match") for a in opened.host.asked if a.path == "/new.png"]
    assert tags == [None, '"1"']


def test_a_host_that_is_away_costs_no_job(opened: Opened) -> None:
    states = iter(["503 X", "429 X"])

    def show(asked: Asked) -> None:
        asked.answer(png("#ff0000"), next(states, "200 OK"))

    opened.host.paths["/later.png"] = show
    source = opened.host.url("/later.png", "127.0.0.1")
    result = opened.producer.run(passed_on("a.png"), inputs={"a.png": source})
    errors = [attempt["error"] for attempt in result["attempts"]]
    shown = f"InputUnavailableError: input 'a.png': {source} is not to be had: 127.0.0.1 answered"
    assert errors == [f"{shown} 503", f"{shown} 429", None]


def test_what_is_secret_in_a_url_stays_so(opened: Opened) -> None:
    opened.host.paths["/a.png"] = lambda asked: asked.answer(status="403 X")
    source = opened.host.url("/a.png?signature=hidden", "127.0.0.1")
    error = opened.producer.failure(passed_on("a.png"), inputs={"a.png": source})
    place = source.partition("?")[0]
    assert str(error) == (f"input 'a.png': {place} is not to be had: 127.0.0.1 answered 403")
    opened.worker.wait_until(lambda: "/a.png" in opened.worker.tail(200))
    assert "hidden" not in opened.worker.tail(1000)


def test_masks_sounds_and_videos(client: Client) -> None:
    sound = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + bytes(24)
    video = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"
    workflow = {
        "1": {"class_type": "LoadImageMask", "inputs": {"image": "m.png", "channel": "red"}},
        "2": {"class_type": "LoadAudio", "inputs": {"audio": "in/s.wav [input]"}},
        "3": {"class_type": "LoadVideo", "inputs": {"file": "v.mp4"}},
        **{
            f"{source}0": {"class_type": "PreviewAny", "inputs": {"source": [source, 0]}}
            for source in "123"
        },
    }
    contents = {"m.png": png("#ff0000"), "in/s.wav": sound, "v.mp4": video}
    result = client.run(workflow, inputs={n: data_url(c) for n, c in contents.items()})
    assert set(result["values"]) == {"10", "20", "30"}


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
