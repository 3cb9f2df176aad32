"""What a job returns, and what its manifest says: the same value."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    # Workers may be newer than the producer that reads this.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Thumbnail(_Model):
    """A small picture of an output, stored beside it."""

    bucket: str
    key: str
    uri: str = Field(description="`s3://bucket/key`.")
    url: str | None = Field(None, description="Presigned download URL, when asked for.")
    content_type: str
    width: int = Field(description="Pixels.")
    height: int
    size_bytes: int


class Output(_Model):
    """One output file, stored."""

    node_id: str
    kind: str = Field(description="The list that the node put it in: images, gifs, audio, ...")
    filename: str
    bucket: str
    key: str
    uri: str = Field(description="`s3://bucket/key`.")
    url: str | None = Field(None, description="Presigned download URL, when asked for.")
    content_type: str = Field(description="Media type, told from the file's first bytes.")
    size_bytes: int
    sha256: str = Field(description="Hexadecimal digest of the stored bytes.")
    stripped: bool | None = Field(
        None, description="Whether no metadata is left in it; none if it was not to be left out."
    )
    thumbnail: Thumbnail | None = Field(
        None, description="When asked for, and the output is a picture."
    )


class ObjectRef(_Model):
    """Where an object is."""

    bucket: str
    key: str


class Attempt(_Model):
    """One attempt at the job, the last of them the one that ended it."""

    number: int = Field(description="From 1.")
    instance: str
    prompt_id: str | None
    error: str | None = Field(None, description="Type and message; none if it succeeded.")
    seconds: float


class Timings(_Model):
    """Seconds spent in each stage of the last attempt, and in all."""

    queued: float = Field(
        description="From enqueue to start; from reception by the worker where the message, "
        "as a bare producer's, does not say when it was enqueued."
    )
    staged: float = Field(description="Until ComfyUI had accepted the prompt.")
    executed: float = Field(description="From acceptance to the end of the execution.")
    uploaded: float = Field(description="From the end of the execution to the last upload.")
    total: float = Field(description="From start to the last upload.")
    nodes: dict[str, float] = Field(default_factory=dict, description="Per node where known.")


class JobResult(_Model):
    """A finished job."""

    job_id: str
    prompt_id: str
    instance: str = Field(description="Base URL of the ComfyUI server that ran it.")
    worker: str
    attempts: list[Attempt]
    metadata: dict[str, str]
    outputs: list[Output]
    manifest: ObjectRef
    timings: Timings
    values: dict[str, dict[str, Any]] = Field(
        description="What nodes showed that is no file: node id to name to value."
    )
    seeds: dict[str, int] = Field(
        default_factory=dict, description="What params that were `random` became: `3.seed` to it."
    )


class Progress(_Model):
    """The meta of Celery's state `PROGRESS`."""

    stage: str = Field(description="staging, queued, executing or uploading.")
    value: float = Field(ge=0, le=1, description="Share of the job that is done.")
    node_id: str | None = None
    class_type: str | None = None
    step: int | None = None
    steps: int | None = None
    instance: str
