"""What doctor, and a worker that starts, say on a healthy stack and on broken ones.

`python -m tests.integration.doctor_table` breaks a stack of its own in one place after the other.
"""

import re
from contextlib import suppress

from sandbox.processes import ChildProcess, end_as_interrupted
from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.command_line import Comfyfleet
from tests.integration.broken_stacks import STACKS

# Seconds in which a worker says what is wrong, or ends.
_START_SECONDS = 20.0
_SAID = re.compile(r" (?:WARNING|ERROR)\] (.*)|^(comfyfleet: .*|[^\[\s].* \(fix: .*)")


def show() -> None:
    """Print it."""
    with Stack() as stack:
        print("== healthy, with a worker")
        worker = stack.worker()
        print(_doctor(stack.environment(), everything=True))
        worker.stop()
        for name, broken in STACKS.items():
            valkey = Valkey(stack.folder("valkey"))
            own = {"CELERY_BROKER_URL": valkey.url, "CELERY_RESULT_BACKEND": valkey.url}
            with broken.breaking(stack, valkey) as variables:
                environment = {**stack.environment(), **own, **variables}
                print(f"\n== {name}")
                print(_doctor(environment, everything=False))
                print(_worker(stack, environment))
            valkey.stop()


def _doctor(environment: dict[str, str], *, everything: bool) -> str:
    ended = Comfyfleet(environment)("doctor", *([] if everything else ["--no-render"]))
    lines = ended.stdout.splitlines()
    told = [
        line
        for number, line in enumerate(lines)
        if everything
        or line.startswith(("✘", "! "))
        or (line.startswith("    →") and lines[number - 1].startswith(("✘", "! ")))
    ]
    # That no worker is there is so on each of them.
    told = [line for line in told if "worker has told" not in line and "start one:" not in line]
    return "\n".join([*told, f"doctor: exit code {ended.code}"])


def _worker(stack: Stack, environment: dict[str, str]) -> str:
    worker = stack.launch_worker(settings={**environment, "SHUTDOWN_GRACE_SECONDS": "0"})
    with suppress(Exception):
        worker.wait_until(lambda: _has_begun(worker), _START_SECONDS)
    code = worker.returncode
    worker.stop()
    said = [one.group(1) or one.group(2) for line in _lines(worker) if (one := _SAID.search(line))]
    end = f"ended with {code}" if code is not None else "goes on"
    return "\n".join([*(f"worker: {line}" for line in dict.fromkeys(said)), f"worker: {end}"])


def _has_begun(worker: ChildProcess) -> bool:
    return any(" ready." in line or "no connection to" in line for line in _lines(worker))


def _lines(worker: ChildProcess) -> list[str]:
    return worker.log.read_text(errors="replace").splitlines()


if __name__ == "__main__":
    end_as_interrupted()
    show()
