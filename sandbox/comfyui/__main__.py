"""`python -m sandbox.comfyui`: start a stand-in ComfyUI server."""

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web

from sandbox.comfyui.files import Folders
from sandbox.comfyui.model_files import DEFAULT_MODELS, ModelFiles
from sandbox.comfyui.nodes import Installation
from sandbox.comfyui.server import create_app
from sandbox.comfyui.versions import DEFAULT_VERSION, VERSIONS

_SHUTDOWN_SECONDS = 0.5


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox.comfyui", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188, help="0 takes a free one")
    parser.add_argument("--directory", type=Path, required=True, help="for input, output and temp")
    parser.add_argument("--comfyui-version", choices=sorted(VERSIONS), default=DEFAULT_VERSION)
    parser.add_argument("--step-seconds", type=float, default=0.05, help="of one sampling step")
    parser.add_argument(
        "--models",
        nargs="*",
        default=DEFAULT_MODELS,
        metavar="FOLDER/NAME",
        help="the model files that it has; more can be put into `models` of its directory",
    )
    parser.add_argument(
        "--model-seconds", type=float, default=0.0, help="of loading a model that is not loaded"
    )
    parser.add_argument(
        "--without-nodes", nargs="*", default=(), metavar="CLASS", help="node classes that it lacks"
    )
    return parser


def _installation(arguments: argparse.Namespace) -> Installation:
    version = VERSIONS[arguments.comfyui_version]
    models = ModelFiles(arguments.directory / "models", version.model_folders)
    models.place(arguments.models)
    return Installation(
        version,
        Folders(arguments.directory),
        arguments.step_seconds,
        models,
        arguments.model_seconds,
        frozenset(arguments.without_nodes),
    )


async def _serve(app: web.Application, host: str, port: int) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"ComfyUI stand-in listening on http://{host}:{port}", flush=True)  # noqa: T201
    await stopping.wait()
    await runner.cleanup()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        app = create_app(_installation(arguments))
    except ValueError as error:
        parser.error(str(error))
    asyncio.run(_serve(app, arguments.host, arguments.port))


if __name__ == "__main__":
    main()
