"""What a job may ask for, and how often it is tried."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from settings import lists
from settings.bounds import MOST_SECONDS


class Jobs(BaseModel):
    """Settings that bound jobs."""

    max_attempts: int = Field(
        3,
        alias="JOB_MAX_ATTEMPTS",
        ge=1,
        description="Attempts that a job gets when transient errors end them.",
    )
    max_crashes: int = Field(
        3,
        alias="JOB_MAX_CRASHES",
        ge=1,
        description="How often a job may take its worker or ComfyUI down before it goes to the "
        "dead letters.",
    )
    workflow_max_bytes: int = Field(
        10 * 1024 * 1024,
        alias="WORKFLOW_MAX_BYTES",
        ge=1024,
        description="Size of a workflow as JSON, in bytes, above which a job is refused.",
    )
    inputs_max_count: int = Field(
        64,
        alias="INPUT_MAX_COUNT",
        ge=0,
        description="Input files of one job above which it is refused.",
    )
    inputs_max_bytes: int = Field(
        100 * 1024 * 1024,
        alias="INPUT_MAX_BYTES",
        ge=1024,
        description="Size of one input file in bytes above which a job is refused.",
    )
    inputs_max_total_bytes: int = Field(
        1024 * 1024 * 1024,
        alias="INPUT_MAX_TOTAL_BYTES",
        ge=1024,
        description="Bytes of all input files of one job that are fetched, above which it is "
        "refused.",
    )
    inputs_timeout_seconds: float = Field(
        60.0,
        alias="INPUT_TIMEOUT_SECONDS",
        gt=0,
        le=MOST_SECONDS,
        description="Seconds for all of the fetch of an input from the web, redirects included.",
    )
    outputs_max_count: int = Field(
        10_000,
        alias="OUTPUT_MAX_COUNT",
        ge=1,
        description="Output files of one job above which it fails.",
    )
    outputs_max_bytes: int = Field(
        10 * 1024 * 1024 * 1024,
        alias="OUTPUT_MAX_BYTES",
        ge=1024,
        description="Size of one output file in bytes above which its job fails.",
    )
    input_buckets: Annotated[lists.Separated, AfterValidator(lists.buckets)] = Field(
        (),
        alias="INPUT_BUCKETS",
        description="Buckets beside the workers' own that inputs may come from, separated by "
        "commas.",
    )
    input_allow_hosts: Annotated[lists.Separated, AfterValidator(lists.hosts)] = Field(
        (),
        alias="INPUT_ALLOW_HOSTS",
        description="Hosts that inputs may come from though they are not public, also by http: "
        "names, addresses or networks, separated by commas.",
    )
