"""`comfyfleet demo`: the command, without what only it needs."""

from pathlib import Path
from typing import Annotated

import typer

from cli.extras import needing_extra


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("demo-output"),
) -> None:
    """Start the stack and a worker, render one image and a batch of three, save them."""
    with needing_extra("sandbox"):
        from cli.demonstration import run_demo
    run_demo(output)
