"""`python -m sandbox.comfyui`: start a stand-in ComfyUI server."""

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web

from sandbox.comfyui.files import Folders
from sandbox.comfyui.nodes import Installation
from sandbox.comfyui.server import create_app
from sandbox.comfyui.versions import DEFAULT_VERSION, VERSIONS

_SHUTDOWN_SECONDS = 0.5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox.comfyui", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188, help="0 takes a free one")
    parser.add_argument("--directory", type=Path, required=True, help="for input, output and temp")
    parser.add_argument("--comfyui-version", choices=sorted(VERSIONS), default=DEFAULT_VERSION)
    parser.add_argument("--step-seconds", type=float, default=0.05, help="of one sampling step")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    installation = Installation(
        VERSIONS[arguments.comfyui_version],
        Folders(arguments.directory),
        arguments.step_seconds,
    )
    runner = web.AppRunner(
        create_app(installation), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    await runner.setup()
    site = web.TCPSite(runner, arguments.host, arguments.port)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"ComfyUI stand-in listening on http://{host}:{port}", flush=True)  # noqa: T201
    await stopping.wait()
    await runner.cleanup()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    asyncio.run(_serve(_arguments()))


if __name__ == "__main__":
    main()
