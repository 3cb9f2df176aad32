"""Enqueue with comfyfleet installed: checked before it is sent, typed when it comes back.

Needs CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
"""

import json
import sys
from pathlib import Path

from tasks import JobError, JobResult, enqueue

workflow = json.loads(Path(__file__).with_name("workflow.json").read_text())

job = enqueue(
    workflow,
    params={"1.color": 0x336699},
    output={"prefix": "examples", "presign_seconds": 600},
    metadata={"customer": "7"},
    expires=3600,  # this and all else that Celery's send_task knows
)
try:
    result = JobResult.model_validate(job.get(timeout=120))
except JobError as error:
    sys.exit(f"the job failed: {error.message}")
for output in result.outputs:
    print(output.filename, output.content_type, output.size_bytes, output.url)
