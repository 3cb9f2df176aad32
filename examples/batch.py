"""Enqueue a job for each combination of some values, and wait for all of them as one.

Needs CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
"""

import json
import sys
from pathlib import Path

from tasks import Batch, BatchProgress, JobResult, enqueue_batch, sweep

workflow = json.loads(Path(__file__).with_name("workflow.json").read_text())


def show(progress: BatchProgress) -> None:
    """Say how far it is."""
    print(f"{progress.value:.0%}: {progress.ended} of {progress.total}, {progress.failed} failed")


rows = sweep({"1.color": [0x993333, 0x339933], "SaveImage.filename_prefix": ["small", "large"]})
batch = enqueue_batch(workflow, rows, output={"prefix": "examples"}, metadata={"customer": "7"})
print("batch", batch.id)

# Its id is all that another process needs to go on; `batch.cancel()` would end all of it.
batch = Batch.restore(batch.id)
batch.wait(show, timeout=120)
for row, result in zip(rows, batch.results(raise_on_error=False), strict=True):
    if not isinstance(result, JobResult):
        sys.exit(f"{row}: {type(result).__name__}: {result}")
    for output in result.outputs:
        print(output.uri, output.sha256)
