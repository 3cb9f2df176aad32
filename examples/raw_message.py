"""The wire as another language sees it: a Redis client, JSON, and no Celery at all.

A job is one JSON document pushed to the list `comfyui`; its state and result are one JSON document
under `celery-task-meta-<id>`. Python stands in here for whatever language you have.

Needs `pip install redis` and CELERY_BROKER_URL (which must be the result backend, too).
"""

import base64
import json
import os
import sys
import time
import uuid
from pathlib import Path

import redis

workflow = json.loads(Path(__file__).with_name("workflow.json").read_text())
job_id = str(uuid.uuid4())

# Celery's message protocol 2: positional arguments, keyword arguments, canvas.
body = [[], {"workflow": workflow}, {}]
message = {
    "headers": {"task": "comfyui.run_workflow", "id": job_id, "root_id": job_id},
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "body": base64.b64encode(json.dumps(body).encode()).decode(),
    "properties": {
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
        "delivery_info": {"exchange": "", "routing_key": "comfyui"},
    },
}

broker = redis.Redis.from_url(os.environ["CELERY_BROKER_URL"])
broker.lpush("comfyui", json.dumps(message))
print("job", job_id)

answer = {"status": "PENDING"}
while answer["status"] not in ("SUCCESS", "FAILURE", "REVOKED"):
    time.sleep(0.1)
    answer = json.loads(broker.get(f"celery-task-meta-{job_id}") or '{"status": "PENDING"}')

if answer["status"] != "SUCCESS":
    sys.exit(f"{answer['result']['exc_type']}: {answer['result']['exc_message'][0]}")
for output in answer["result"]["outputs"]:
    print(output["uri"], output["sha256"])
