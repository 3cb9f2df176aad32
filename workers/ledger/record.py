"""What is kept of a job that has not ended yet."""

from pydantic import BaseModel, ConfigDict, Field

from tasks.result import Attempt


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Route(_Model):
    """Where the next attempt should run. A wish: after `until` any place will do."""

    prefer: str | None = None
    avoid: tuple[str, ...] = ()
    until: float = Field(0.0, description="The server's time, Unix time in seconds.")


class Record(_Model):
    """A job's attempts so far, and where its latest prompt is."""

    attempts: tuple[Attempt, ...] = Field((), description="Those that have ended.")
    place: str = Field(description="Where the prompt of the current attempt is or will be.")
    instance: str = Field(description="Base URL of the ComfyUI server at that place.")
    client_id: str = Field(description="The websocket client that hears of the prompt.")
    prompt: int = Field(1, description="The attempt from which the prompt's id is made.")
    folder: str = Field(description="Where the job's objects are, as its first message asked.")
    enqueued_at: float = Field(
        0.0, description="When the job was enqueued, as its first message told; Unix time."
    )
    since: float = Field(
        0.0, description="When the prompt's attempt began, by the server; 0 for the first one."
    )
    spent: bool = Field(
        False, description="The prompt has ended in vain: the next attempt needs a new one."
    )
    failures: int = Field(0, description="Attempts that count against the limit.")
    crashes: int = Field(0, description="How often it took its worker or its ComfyUI down.")
    accused: bool = Field(
        False, description="The last of these was its ComfyUI, as far as could be told."
    )
    bypass: tuple[str, ...] = Field((), description="Nodes to execute again, cached or not.")
    route: Route = Route()

    @property
    def number(self) -> int:
        """The number of the current attempt, from 1."""
        return len(self.attempts) + 1
