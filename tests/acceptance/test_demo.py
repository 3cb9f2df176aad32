"""`make demo`, as a newcomer runs it: twice at a time, interrupted, and on a server of his own."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from sandbox.stack import Stack

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]


class Demo:
    """A demo in a process group and a temporary folder of its own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.output = folder / "images"
        self.log = folder / "log"
        command = [ROOT / ".venv/bin/comfyfleet", "demo", "--output", self.output]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary), **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def leftovers(self) -> list[str]:
        """Files in its temporary folder, and processes that were started with it."""
        mark = f"TMPDIR={self.temporary}".encode()
        left = [str(path) for path in self.temporary.iterdir()]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    left.append((process / "cmdline").read_bytes().decode())
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return left


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_two_demos_side_by_side(tmp_path: Path) -> None:
    demos = [Demo(tmp_path / name) for name in ("a", "b")]
    for demo in demos:
        assert demo.process.wait(90) == 0, demo.log.read_text()
        images = sorted(demo.output.iterdir())
        assert len(images) == 4
        assert {_size(path) for path in images} == {(512, 512)}
        printed = demo.log.read_text()
        assert "S3 key" in printed
        assert "Everything stopped" in printed
        assert demo.leftovers() == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "seaweedfs-*/seaweedfs.log"),
        (signal.SIGHUP, "comfyui-*/comfyui.log"),
        (signal.SIGINT, "worker-*/worker.log"),
        (signal.SIGTERM, "worker-*/worker.log"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    demo = Demo(tmp_path)
    deadline = time.monotonic() + 60
    while not any(demo.temporary.glob(f"comfyfleet-*/{moment}")):
        assert time.monotonic() < deadline, demo.log.read_text()
        time.sleep(0.05)
    assert demo.leftovers()
    os.killpg(demo.process.pid, number)
    assert demo.process.wait(60) == 130, demo.log.read_text()
    assert "Traceback" not in demo.log.read_text()
    assert demo.leftovers() == []


def test_a_demo_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    demo = Demo(tmp_path, COMFYUI_URL="http://127.0.0.1:1")
    assert demo.process.wait(60) == 1
    printed = demo.log.read_text()
    assert "ComfyUI at http://127.0.0.1:1 refused or cut the connection" in printed
    assert "Traceback" not in printed
    assert demo.leftovers() == []


def test_a_users_ordinary_environment_does_no_harm(tmp_path: Path) -> None:
    demo = Demo(
        tmp_path,
        COMFYUI_URL="",
        HTTP_PROXY="http://127.0.0.1:1",
        LOG_LEVEL="error",
        AWS_SESSION_TOKEN="t",
        AWS_PROFILE="nobody",
    )
    assert demo.process.wait(60) == 0, demo.log.read_text()
    assert demo.leftovers() == []


def test_a_demo_that_cannot_write_says_so_first() -> None:
    command = [ROOT / ".venv/bin/comfyfleet", "demo", "--output", "/dev/null/x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "/dev/null" in done.stderr


def test_a_demo_on_a_server_of_ones_own(stack: Stack, tmp_path: Path) -> None:
    before = len(stack.comfyui.executions())
    demo = Demo(tmp_path, COMFYUI_URL=stack.comfyui_url)
    assert demo.process.wait(60) == 0, demo.log.read_text()
    assert len(stack.comfyui.executions()) == before + 4


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_demo_is_this_demo() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ".venv/bin/comfyfleet demo" in planned.stdout
