"""How a worker works: how much at once, what it waits for, what it says."""

from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from settings.bounds import MOST_SECONDS


class Worker(BaseModel):
    """Settings of the worker process."""

    worker_slots: int = Field(
        12,
        alias="WORKER_SLOTS",
        ge=1,
        le=64,
        description="Jobs in a worker's hands at most: one executes, one waits in ComfyUI's queue, "
        "the others are being stored.",
    )
    warm_wait_seconds: float = Field(
        30.0,
        alias="WARM_WAIT_SECONDS",
        ge=0,
        le=MOST_SECONDS,
        description="Seconds that a job waits at most for a server which has its models loaded "
        "before another one loads them; 0: jobs go to whichever server is next.",
    )
    shutdown_grace_seconds: float = Field(
        15.0,
        alias="SHUTDOWN_GRACE_SECONDS",
        ge=0,
        le=MOST_SECONDS,
        description="Seconds that running jobs have to end after SIGTERM before they are given "
        "back.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", alias="LOG_LEVEL", description="What a worker logs; `-l` on its command line wins."
    )
    log_format: Literal["console", "json"] = Field(
        "console",
        alias="LOG_FORMAT",
        description="How a worker logs: for people, or one JSON object a line for programs.",
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value
