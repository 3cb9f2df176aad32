"""`comfyfleet worker`: a worker, or one for each server that this host has."""

import os
import sys
from typing import Annotated

import typer

from settings import load
from workers.lifecycle.crew import Crew, check_ports

_WORKER = (sys.executable, "-m", "celery", "-A", "workers", "worker")


def work(
    per_gpu: Annotated[
        bool,
        typer.Option("--per-gpu", help="Start a worker for each server of COMFYUI_URLS."),
    ] = False,
) -> None:
    """Start a worker: `celery -A workers worker`, once the settings are checked.

    With --per-gpu one for each server, which stays with it: each is started again when it ends, its
    lines begin with its server, and SIGTERM, SIGINT and SIGQUIT reach all of them. The exit code is
    then 0 if all have left in order, else 1.
    """
    settings = load().require_worker()
    if per_gpu:
        check_ports(settings.metrics_port, len(settings.comfyui_servers))
        raise typer.Exit(Crew(_WORKER, settings.comfyui_servers, _say).run())
    sys.stdout.flush()
    os.execv(_WORKER[0], _WORKER)  # noqa: S606  # it is what was asked for


def _say(line: str) -> None:
    typer.echo(f"comfyfleet: {line}", err=True)
