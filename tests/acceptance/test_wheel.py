"""The wheel holds what it must and a worker starts from it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sandbox.processes import ChildProcess
from sandbox.stack import Stack

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git has, so that nothing is written into the clone."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source]
    subprocess.run(build, check=True, capture_output=True, timeout=100)
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"settings", "tasks", "workers", "cli", "sandbox"}
    assert {"workers/celery.py", "workers/execution/executor.py", "sandbox/comfyui/server.py"} <= {
        *names
    }
    in_tree = {
        str(path.relative_to(ROOT)) for package in top for path in (ROOT / package).rglob("*.py")
    }
    assert in_tree == {name for name in names if name.endswith(".py")}


def test_a_worker_starts_from_it(wheel: Path, stack: Stack, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    log = tmp_path / "log"
    # Before the clone on the path, and away from it.
    comfyui = stack.stand_in()
    own = {**stack.environment(comfyui.url), "PYTHONPATH": str(site), "LOG_LEVEL": "INFO"}
    where = subprocess.run(
        [sys.executable, "-c", "import workers; print(workers.__file__)"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **own},
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(site))
    celery = Path(sys.executable).with_name("celery")
    worker = ChildProcess([celery, "-A", "workers", "worker"], log, env=own, cwd=tmp_path)
    try:
        worker.wait_until(lambda: " ready." in log.read_text())
    finally:
        worker.stop()
    assert worker.returncode == 0
