"""The commands as they are listed and as they are loaded, and what loading costs."""

import subprocess
import sys

import pytest
from typer.main import get_command

from cli.app import COMMANDS, Lazy, app
from cli.exit_codes import ExitCode


def first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_is_listed_is_what_is_loaded(command: Lazy) -> None:
    loaded = command.loaded()
    assert loaded.name == command.name
    # It is installed for the whole program, once.
    assert "install_completion" not in [one.name for one in loaded.params]
    assert first_paragraph(loaded.help) == command.help == command.announced().help


def test_all_of_them_are_listed() -> None:
    group = get_command(app)
    assert group.list_commands(None) == list(COMMANDS)
    assert group.get_command(None, "nothing") is None


def test_help_loads_nothing_that_only_some_commands_need() -> None:
    heavy = ("celery", "redis", "boto3", "requests", "pydantic", "workers", "tasks")
    program = (
        "import sys; from cli.app import app\n"
        "try: app(['--help'])\n"
        f"finally: print([one for one in {heavy} if one in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == "[]\n"
    for name in COMMANDS:
        assert f" {name} " in done.stdout


def test_exit_codes_are_told_apart() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 130]
    assert all(code.meaning.endswith(".") for code in ExitCode)
