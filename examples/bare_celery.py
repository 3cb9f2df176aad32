"""Enqueue from any service that has Celery: nothing of comfyfleet is installed there.

Needs `pip install 'celery[redis]'`, CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
"""

import json
import sys
import time
from pathlib import Path

from celery import Celery
from celery.states import READY_STATES

workflow = json.loads(Path(__file__).with_name("workflow.json").read_text())

# Broker and backend come from the two variables.
app = Celery()
job = app.send_task("comfyui.run_workflow", kwargs={"workflow": workflow}, queue="comfyui")
print("job", job.id)

# State and progress in one look: between two of them the job may end.
while (meta := app.backend.get_task_meta(job.id))["status"] not in READY_STATES:
    if meta["status"] == "PROGRESS":
        print(f"{meta['result']['stage']}: {meta['result']['value']:.0%}")
    time.sleep(0.2)

if job.failed():
    sys.exit(f"{type(job.result).__name__}: {job.result}")
for output in job.result["outputs"]:
    print(output["uri"], output["sha256"])
