"""What docs/inputs.md says is true: its examples, its limits and its names."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.stack import Stack
from settings.model import Settings
from tasks import JobRequest, errors
from tasks.errors import InvalidInputError
from workers.inputs.names import check_name, users_of
from workers.web import UnusableError
from workers.web.target import read_url

pytestmark = pytest.mark.acceptance

DOCUMENT = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def snippets(kind: str) -> list[str]:
    found = [snippet for of_kind, snippet in SNIPPETS if of_kind == kind]
    assert found
    return found


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("snippet", snippets("python"))
def test_the_program_runs(stack: Stack, snippet: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        env={"PATH": "/usr/bin:/bin", **stack.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"s3://comfyui/\S+/0-negative_\d+_\.png", done.stdout.strip())


@pytest.mark.parametrize("snippet", snippets("json"))
def test_the_sources_are_valid(snippet: str) -> None:
    request = JobRequest(workflow={}, inputs=json.loads(snippet))
    for name, source in request.inputs.items():
        check_name(name)
        if source.startswith("https:"):
            read_url(source)


def test_settings_and_errors_are_called_as_they_are() -> None:
    known = {field.alias for field in Settings.model_fields.values()}
    assert set(re.findall(r"`((?:INPUT|JOB)_[A-Z_]+)`", DOCUMENT)) <= known
    for error in set(re.findall(r"`(\w+Error)`", DOCUMENT)):
        assert hasattr(errors, error)


def test_what_is_no_host_is_none() -> None:
    (listed,) = re.findall(r"A host is a name.*?are refused", DOCUMENT, re.DOTALL)
    hosts = re.findall(r"`([\w.]+)`", listed)
    assert len(hosts) == 4
    for host in hosts:
        with pytest.raises(UnusableError):
            read_url(f"https://{host}/")


def test_a_name_with_the_note_of_another_folder_is_another_file() -> None:
    workflow = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png [output]"}}}
    assert users_of(workflow, ["a.png"]) == {"a.png": []}
    with pytest.raises(InvalidInputError):
        check_name("a.png [output]")
