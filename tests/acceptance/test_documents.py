"""What the documents say is true: every snippet runs, every table matches the code."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cli.comfy import comfy
from reference.pages import PAGES
from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from settings import Settings
from tasks import JobRequest, JobResult, Output, OutputOptions, Progress, Thumbnail

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ").partition("#")[0].strip()
    for kind, snippet in SNIPPETS
    if kind == "console"
    for line in snippet.splitlines()
]


def test_every_snippet_is_of_a_kind_that_is_run() -> None:
    assert {kind for kind, _ in SNIPPETS} == {"console", "python"}
    assert len(COMMANDS) >= 6


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("snippet", [s for kind, s in SNIPPETS if kind == "python"])
def test_python_snippets_run(stack: Stack, snippet: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet.replace("http://127.0.0.1:8188", stack.comfyui_url)],
        env={"PATH": "/usr/bin:/bin", **stack.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = r"s3://comfyui/\S+/0-hello_\d+_\.png" if "send_task" in snippet else r"0\.8\.0 \(\)"
    assert re.fullmatch(printed, done.stdout.strip())


def test_the_snippet_without_a_queue_runs(stack: Stack, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "without-a-queue.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", snippet.replace("http://127.0.0.1:8188", stack.comfyui_url)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^2 images output/hello_\d+_\.png$", done.stdout, re.MULTILINE)
    # Each command that the page names is one.
    documented = set(re.findall(r"^\| `comfyfleet comfy (\w+)", page, re.MULTILINE))
    assert documented == {command.name for command in comfy.registered_commands}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_do_what_is_said(stack: Stack, tmp_path: Path, command: str) -> None:
    program, *arguments = command.split()
    match program:
        case "export":
            variable, _, value = arguments[0].partition("=")
            alias = {field.alias: name for name, field in Settings.model_fields.items()}
            assert Settings(**{variable: value}).model_dump()[alias[variable]]
        case "make":
            # The demo runs in tests of its own, and this suite is what `make test` runs.
            subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True)
        case "celery" | "comfyfleet":
            _run_for_a_while([BIN / program, *arguments], stack, tmp_path)
        case _:
            pytest.fail(f"nobody runs {command!r}")


def _run_for_a_while(command: list[str | Path], stack: Stack, folder: Path) -> None:
    ready, ended_by, code = {
        "worker": (" ready.", signal.SIGTERM, 0),
        "settings": ("WORKER_SLOTS", None, 0),
        "sandbox": ("export AWS_DEFAULT_REGION=", signal.SIGINT, 130),
    }[str(command[-1])]
    log = folder / "log"
    # The session's worker may drive the same server.
    own = {"COMFYUI_SHARED": "1", "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    environment = {**stack.environment(), **own}
    process = ChildProcess(command, log, env=environment)
    try:
        process.wait_until(lambda: ready in log.read_text() or process.returncode == 0)
        if ended_by is not None:
            process.send_signal(ended_by)
        assert process.wait(60) == code, log.read_text()
    finally:
        process.stop()
    assert ready in log.read_text()
    assert not list(folder.glob("comfyfleet-*"))


def _rows(header: str) -> dict[str, list[str]]:
    table = README.partition(f"| {header} |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    assert (ROOT / "docs/reference" / name).read_text() == PAGES[name](), "make reference"


def test_the_table_of_arguments_is_the_request() -> None:
    assert list(_rows("argument")) == list(JobRequest.model_fields)
    for option in OutputOptions.model_fields:
        assert f"`{option}`" in README


def test_every_field_of_result_and_progress_is_named() -> None:
    for model in (JobResult, Output, Progress):
        for name in model.model_fields:
            assert f"`{name}`" in README, name


def test_every_field_of_a_thumbnail_is_shown() -> None:
    shown = (ROOT / "docs/outputs.md").read_text()
    for name in Thumbnail.model_fields:
        assert f'"{name}"' in shown, name


def test_links_lead_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", document.read_text()):
            assert (ROOT / target).exists(), f"{document.name}: {target}"


def test_the_folders_that_contributing_names_are_there() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"^\| `([\w./]+)` \|", contributing, re.MULTILINE):
        assert (ROOT / path).exists(), path


def test_the_compose_file_sets_only_variables_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    known = {field.alias for field in Settings.model_fields.values()}
    given = set(compose["services"]["worker"]["environment"])
    assert {name for name in given if not name.startswith("AWS_")} <= known
    # Scaling needs services without a fixed name and without a fixed port.
    assert not {"container_name", "ports"} & set(compose["services"]["worker"])
    assert "--appendonly" in compose["services"]["valkey"]["command"]
    assert compose["services"]["valkey"]["volumes"]


def test_the_image_has_what_the_wheel_has_and_runs_without_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for package in ("settings", "tasks", "workers", "cli", "sandbox"):
        assert f"COPY {package} {package}" in dockerfile
        assert f"!{package}" in (ROOT / ".dockerignore").read_text().split()
    assert dockerfile.count("FROM ") == 2
    assert "USER 10001" in dockerfile.partition("COPY --from=build")[2]


def test_no_index_and_no_path_of_a_machine_in_the_project() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    forbidden = re.compile(r"--(extra-)?index-url|/home/[a-z]+/(?!$)|\bfile://")
    own = Path(__file__).relative_to(ROOT)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path == ROOT / own or path.suffix in (".jsonl", ".png", ".webp") or not path.is_file():
            continue
        assert not forbidden.search(path.read_text()), name


@pytest.mark.parametrize("document", ["README.md", "docs/performance.md", "docs/scaling.md"])
def test_what_was_measured_is_what_was_written_down(document: str) -> None:
    measured = "".join(path.read_text() for path in (ROOT / "docs/measured").glob("*.md"))
    rows = [
        line
        for line in (ROOT / document).read_text().splitlines()
        if line.startswith("|") and re.search(r"\d\.\d", line) and "`" not in line
    ]
    assert rows
    assert [row for row in rows if row not in measured] == []
