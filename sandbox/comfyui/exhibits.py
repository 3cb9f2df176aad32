"""A node that puts out whatever it is told, as custom nodes do: any file, under any name."""

import asyncio
import json
from base64 import b64decode

from sandbox.comfyui.files import within
from sandbox.comfyui.nodes import Call, NodeClass, Result


async def _exhibit(call: Call) -> Result:
    return await asyncio.to_thread(_write, call)


def _write(call: Call) -> Result:
    for name, content in json.loads(call.inputs["files"]).items():
        path = within(call.installation.folders.directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b64decode(content))
    return Result(ui=json.loads(call.inputs["shown"]))


SANDBOX_EXHIBIT = NodeClass(
    name="SandboxExhibit",
    display_name="Exhibit (sandbox only)",
    category="sandbox",
    description="Writes files and shows what it is told.",
    inputs=lambda: {
        # A path below the server's folder, such as output/a.mp4, to content in Base64.
        "files": ["STRING", {"default": "{}", "multiline": True}],
        "shown": ["STRING", {"default": "{}", "multiline": True}],
    },
    run=_exhibit,
    output_node=True,
    python_module="sandbox",
)
