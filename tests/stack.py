"""The stack as tests use it: started once, with bare clients that know nothing of us."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from celery import Celery
from celery.result import AsyncResult
from celery.states import READY_STATES

from sandbox.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Workflow = dict[str, Any]


class Client:
    """A producer of another service: Celery and boto3, two names and nothing of ours."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.bucket = environment["S3_BUCKET"]
        self.celery = Celery(
            broker=environment["CELERY_BROKER_URL"], backend=environment["CELERY_RESULT_BACKEND"]
        )
        self.s3: S3Client = boto3.client(
            "s3",
            endpoint_url=environment["S3_ENDPOINT_URL"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_DEFAULT_REGION"],
        )

    def send(
        self, workflow: object, *, options: Mapping[str, Any] | None = None, **arguments: Any
    ) -> AsyncResult[Any]:
        """Enqueue a job by name."""
        return self.celery.send_task(
            "comfyui.run_workflow",
            kwargs={"workflow": workflow, **arguments},
            queue="comfyui",
            **(options or {}),
        )

    def run(self, workflow: object, **arguments: Any) -> dict[str, Any]:
        """Enqueue a job and wait for its result."""
        return self.send(workflow, **arguments).get(timeout=30)

    def failure(self, workflow: object, **arguments: Any) -> Exception:
        """Enqueue a job and wait for its failure."""
        handle = self.send(workflow, **arguments)
        error = handle.get(timeout=30, propagate=False)
        assert handle.state == "FAILURE", error
        return error

    @contextmanager
    def following(self, job_id: str) -> Iterator[Iterator[dict[str, Any]]]:
        """All that is told of a job from now on, until its end, however seldom somebody looks."""
        backend = self.celery.backend
        with backend.client.pubsub(ignore_subscribe_messages=True) as ear:
            ear.subscribe(backend.get_key_for_task(job_id))
            # Until the server has confirmed it.
            ear.get_message(timeout=30)
            yield self._told(ear)

    def _told(self, ear: Any) -> Iterator[dict[str, Any]]:
        backend = self.celery.backend
        while (message := ear.get_message(timeout=30)) is not None:
            yield (meta := backend.meta_from_decoded(backend.decode(message["data"])))
            if meta["status"] in READY_STATES:
                return
        raise TimeoutError("nothing was told of the job for 30 s")

    def content(self, key: str) -> bytes:
        """An object's bytes."""
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def manifest(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest that a result names."""
        return json.loads(self.content(result["manifest"]["key"]))

    def keys(self, prefix: str) -> set[str]:
        """The keys below a prefix."""
        listing = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return {item["Key"] for item in listing.get("Contents", [])}

    def close(self) -> None:
        """Close every connection, so that no test is blamed for another's."""
        self.celery.backend.result_consumer.stop()
        self.celery.close()
        self.s3.close()


def bars(
    seed: int, *, seconds: float = 0.1, steps: int = 2, mode: str = "ok", batch_size: int = 1
) -> Workflow:
    """A workflow that takes as long as it is told, or fails as told."""
    inputs = {"seconds": seconds, "steps": steps, "width": 64, "height": 48}
    return {
        "1": {
            "class_type": "BarsRender",
            "inputs": {**inputs, "seed": seed, "batch_size": batch_size, "mode": mode},
        },
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "shots/demo"},
        },
    }


__all__ = ["Client", "Stack", "Workflow", "bars"]
