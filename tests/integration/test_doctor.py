"""`comfyfleet doctor` on a healthy stack and on broken ones."""

import time
from dataclasses import replace

import boto3
import pytest
from celery import Celery

from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from sandbox.valkey import Valkey
from settings import Settings
from tests.command_line import Comfyfleet
from tests.integration.broken_stacks import PASSWORD, STACKS, Broken
from tests.stack import Client
from workers.checks.doctor import all_checks
from workers.checks.finding import Finding, Status
from workers.checks.running import exit_code, run

pytestmark = [
    pytest.mark.integration,
    # Celery's own.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex"),
]

# Of one check that nobody answers, and more on a machine that is busy.
MOST_SECONDS = 40.0


def examined(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # The session of the process has found credentials before.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    settings = Settings()
    app = Celery(
        broker=settings.broker_url.get_secret_value(),
        backend=settings.result_backend.get_secret_value(),
    )
    with app, all_checks(settings, app, render=False) as checks:
        # What ends them are their own timeouts.
        found = list(run([replace(check, seconds=MOST_SECONDS) for check in checks]))
        app.backend.result_consumer.stop()
    return found


@pytest.mark.parametrize("broken", [pytest.param(one, id=name) for name, one in STACKS.items()])
def test_it_says_what_is_broken_and_how_to_mend_it(
    stack: Stack, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, broken: Broken
) -> None:
    began = time.monotonic()
    with broken.breaking(stack, valkey) as variables:
        own = {"CELERY_BROKER_URL": valkey.url, "CELERY_RESULT_BACKEND": valkey.url}
        found = examined({**stack.environment(), **own, **variables}, monkeypatch)
    assert time.monotonic() - began < MOST_SECONDS
    by_name = {one.name: one for one in found}
    # No worker is there, which is to be known as well.
    troubles = {
        name: one
        for name, one in by_name.items()
        if one.status in (Status.WARN, Status.FAIL) and name != "workers"
    }
    for name, (status, sentence) in broken.finds.items():
        assert by_name[name].status == status, by_name[name]
        assert sentence in by_name[name].sentence
    # One reason is told once: what rests on it is passed over.
    assert troubles.keys() == broken.finds.keys(), troubles
    assert exit_code(found) == broken.code
    first = by_name[next(iter(broken.finds))]
    assert broken.fix in first.fix
    assert PASSWORD not in str(found)
    assert "wrong@" not in str(found)


def test_a_healthy_stack_passes_all_and_keeps_nothing_of_it(
    stack: Stack, running_worker: ChildProcess, client: Client
) -> None:
    assert running_worker.pid
    ended = Comfyfleet(stack.environment())("doctor", "--json")
    assert ended.code == 0, ended
    assert {one["status"] for one in ended.json} == {"ok"}, ended.stdout
    assert [one["name"] for one in ended.json][-3:] == ["workers", "render", "job"]
    assert not client.keys("comfyfleet-")


def test_people_read_what_fails_and_under_it_how_to_mend_it(stack: Stack) -> None:
    environment = {**stack.environment(), "S3_BUCKET": "nowhere"}
    ended = Comfyfleet(environment)("doctor", "--no-render")
    assert (ended.code, ended.stderr) == (1, "")
    lines = ended.stdout.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("✘ store: ")]
    assert "no bucket 'nowhere'" in lines[at]
    assert lines[at + 1].startswith("    → make it")
    assert any(line.startswith("- store reads: not looked at") for line in lines)
    assert not any("render" in line for line in lines)


def test_wrong_settings_are_all_that_is_said_of_them() -> None:
    ended = Comfyfleet({"WORKER_SLOTS": "x", "S3_BUCKET": "s3://b"})("doctor", "--json")
    assert ended.code == 2
    (finding,) = ended.json
    assert (finding["name"], finding["status"]) == ("settings", "fail")
    assert "WORKER_SLOTS: found 'x'" in finding["sentence"]
    assert "S3_BUCKET: found 's3://b', expected the name of a bucket" in finding["sentence"]
