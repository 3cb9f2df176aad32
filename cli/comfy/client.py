"""How commands reach a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError

from cli.errors import CommandError
from settings import load
from settings.model import Settings
from tasks.request import shown
from workers.bootstrap.clients import comfyui_client
from workers.comfyui import ComfyUI

Url = Annotated[
    str | None,
    typer.Option(help="Base URL of the server; default: COMFYUI_URL.", show_default=False),
]


@contextmanager
def open_server(url: str | None) -> Iterator[ComfyUI]:
    """A client of the server at the URL, or of the one that the settings name.

    Raises:
        CommandError: the URL is none.
    """
    settings = load()
    with comfyui_client(settings, _checked(url) if url is not None else None) as server:
        yield server


def _checked(url: str) -> str:
    # Messages name it, so that it must be what COMFYUI_URL may be: without secrets, above all.
    try:
        return Settings.model_validate({"COMFYUI_URL": url}).comfyui_url
    except ValidationError as error:
        expected = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise CommandError(f"--url: found {shown(url)}, expected {expected}") from None
