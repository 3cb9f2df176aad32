"""Whom workers tell of jobs, and how they sign it."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from settings import lists, secrets


class Webhooks(BaseModel):
    """Settings of webhooks."""

    webhook_secret: Annotated[secrets.Separated, AfterValidator(secrets.of_webhooks)] = Field(
        (),
        alias="WEBHOOK_SECRET",
        description="What webhooks are signed with, `whsec_...`; with several, separated by "
        "commas, with each. Unset: jobs that name a webhook are refused.",
    )
    webhook_allow_hosts: Annotated[lists.Separated, AfterValidator(lists.hosts)] = Field(
        (),
        alias="WEBHOOK_ALLOW_HOSTS",
        description="Hosts that webhooks may go to though they are not public, also by http: "
        "names, addresses or networks, separated by commas.",
    )
