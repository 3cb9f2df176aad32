"""Enqueue a signed job from any service that has Celery: nothing of comfyfleet is installed there.

Needs `pip install 'celery[redis]'`, CELERY_BROKER_URL, CELERY_RESULT_BACKEND, and as MESSAGE_SECRET
the one that workers have.
"""

import hmac
import json
import os
from pathlib import Path

from celery import Celery
from celery.signals import before_task_publish
from kombu.serialization import dumps

secret = os.environ["MESSAGE_SECRET"].encode()


@before_task_publish.connect(sender="comfyui.run_workflow")
def sign(body, headers, **_):  # noqa: ANN001, ANN003, ANN201
    """Sign id and body of each job; chains and groups come this way, too."""
    text = dumps(body, serializer="json")[2]
    mac = hmac.digest(secret, f"{headers['id']}\n{text}".encode(), "sha256")
    headers["comfyfleet-signature"] = f"v1,{mac.hex()}"


workflow = json.loads(Path(__file__).with_name("workflow.json").read_text())
job = Celery().send_task("comfyui.run_workflow", kwargs={"workflow": workflow}, queue="comfyui")
for output in job.get(timeout=60)["outputs"]:
    print(output["uri"], output["sha256"])
