"""`comfyfleet sandbox`: the stack, for as long as one likes."""

import signal
import sys
from typing import Annotated

import typer

from cli.extras import needing_extra
from settings import load


def sandbox(
    servers: Annotated[int, typer.Option(min=1, help="Stand-in ComfyUI servers to start.")] = 1,
) -> None:
    """Start Valkey, SeaweedFS and stand-in ComfyUI servers; print the environment to export.

    With COMFYUI_URL set that server is used, and of the stand-ins there is one less.
    """
    with needing_extra("sandbox"):
        from sandbox.stack import Stack
    with Stack(load().own_comfyui_url) as stack:
        urls = [stack.comfyui_url, *(stack.stand_in().url for _ in range(servers - 1))]
        for variable, value in stack.environment().items():
            typer.echo(f"export {variable}={value}")
        for url in urls[1:]:
            typer.echo(f"# one more server: COMFYUI_URL={url}")
        sys.stdout.flush()
        typer.echo("The stack runs until Ctrl-C.", err=True)
        signal.pause()
