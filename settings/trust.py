"""Whose jobs are believed, and what they may have executed."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from settings import lists, secrets


class Trust(BaseModel):
    """Settings of what is trusted."""

    allowed_nodes: lists.Separated = Field(
        (),
        alias="ALLOWED_NODES",
        description="Node classes that jobs may use, names or patterns such as `Load*`, separated "
        "by commas; unset: all.",
    )
    denied_nodes: lists.Separated = Field(
        (),
        alias="DENIED_NODES",
        description="Node classes that jobs may not use, as in ALLOWED_NODES; wins over that.",
    )
    message_secret: Annotated[secrets.Separated, AfterValidator(secrets.of_messages)] = Field(
        (),
        alias="MESSAGE_SECRET",
        description="What producers sign jobs with; with several, separated by commas, with the "
        "first, and workers believe each. A worker that has one refuses jobs without a signature.",
    )
