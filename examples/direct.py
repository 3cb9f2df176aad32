"""Run a workflow on one ComfyUI server and save what it makes: no broker, no store, no worker.

Needs comfyfleet installed, and COMFYUI_URL.
"""

import json
import os
import sys
from pathlib import Path

from tasks import JobError
from tasks.result import Progress
from workers.comfyui import ComfyUI

workflow = json.loads(Path(__file__).with_name("workflow.json").read_text())


def show(progress: Progress) -> None:
    """Tell how far it is."""
    print(f"{progress.stage}: {progress.value:.0%} {progress.class_type or ''}")


with ComfyUI(os.environ["COMFYUI_URL"]) as comfyui:
    try:
        execution = comfyui.execute(workflow, "output", timeout=600, on_progress=show)
    except JobError as error:
        sys.exit(f"{type(error).__name__}: {error.message}")
for file in execution.files:
    print(file.node_id, file.kind, file.path)
