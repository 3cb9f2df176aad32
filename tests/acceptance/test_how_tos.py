"""The how-tos, each followed as it stands, against a worker."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from sandbox.stack import Stack
from tests.pages import snippets, write_files
from tests.stack import Client

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("worker")]

DJANGO_PROJECT = """
import sys, time
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ROOT_URLCONF="renders.urls", INSTALLED_APPS=["renders"], ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django.core.management import call_command
from django.test import Client
call_command("migrate", run_syncdb=True, verbosity=0)
client = Client(raise_request_exception=True)
created = client.post("/renders", {"text": "from-django"})
assert created.status_code == 202, created.content
id = created.json()["id"]
deadline = time.monotonic() + 30
while not (told := client.get(f"/renders/{id}").json())["ended"]:
    assert time.monotonic() < deadline, told
assert told["state"] == "SUCCESS", told
assert client.get("/renders/7b2f6a52-4f0c-4f5e-9a35-0f6f1c9f1f11").status_code == 404
print(told["urls"][0])
"""

FASTAPI_SERVICE = """
import json
from fastapi.testclient import TestClient
from progress import app
client = TestClient(app)
created = client.post("/renders", json={"color": 255})
assert created.status_code == 202, created.text
id = created.json()["id"]
with client.stream("GET", f"/renders/{id}/events") as answer:
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
assert told[-1] == client.get(f"/renders/{id}").json()
assert told[-1]["state"] == "SUCCESS", told
assert all(one != other for one, other in zip(told, told[1:]))
assert client.post("/renders", json={"color": -1}).status_code == 422
assert "EventSource" in client.get("/").text
print(told[-1]["urls"][0])
"""


def run(program: str, stack: Stack, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", program],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), **stack.environment()},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def program_of(page: str) -> str:
    (snippet,) = [one for one in snippets(page) if one.kind == "python"]
    return snippet.text


def test_plain_celery(stack: Stack, tmp_path: Path) -> None:
    told = run(program_of("docs/how-to/celery.md"), stack, tmp_path)
    name, content_type, url = told.split()
    # Other pages' images on the same server begin with `hello`, too.
    assert re.fullmatch(r"hello_\d+_\.png", name)
    assert content_type == "image/png"
    assert url.startswith(f"{stack.seaweedfs.url}/comfyui/customers/7/")


def test_cancelling(stack: Stack, tmp_path: Path) -> None:
    assert run(program_of("docs/how-to/cancel.md"), stack, tmp_path).endswith("REVOKED")


def test_django(stack: Stack, tmp_path: Path) -> None:
    write_files("docs/how-to/django.md", tmp_path)
    (tmp_path / "renders" / "__init__.py").touch()
    assert "from-django_00001_.png" in run(DJANGO_PROJECT, stack, tmp_path)


def test_fastapi_with_progress_in_a_page(stack: Stack, tmp_path: Path) -> None:
    for page in ("docs/how-to/fastapi.md", "docs/how-to/progress-in-a-web-page.md"):
        write_files(page, tmp_path)
    assert "-hello_" in run(FASTAPI_SERVICE, stack, tmp_path)


def test_a_message_from_another_language(stack: Stack, client: Client) -> None:
    (snippet,) = [
        one for one in snippets("docs/how-to/other-languages.md") if one.title == "message.json"
    ]
    message = json.loads(snippet.text)
    with redis.Redis.from_url(stack.valkey.url) as connection:
        connection.lpush("comfyui", snippet.text)
    result = client.celery.AsyncResult(message["headers"]["id"]).get(timeout=30)
    assert result["outputs"][0]["filename"].startswith("hello_")
