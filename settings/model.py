"""All settings as one value, put together from those of each part."""

from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from settings.broker import Broker
from settings.comfyui import ComfyUI
from settings.errors import SettingsError
from settings.jobs import Jobs
from settings.masking import MASK, shown, without_password
from settings.monitoring import Monitoring
from settings.storage import Storage
from settings.traces import Traces
from settings.trust import Trust
from settings.webhooks import Webhooks
from settings.worker import Worker

# Of these nothing is shown, whatever is wrong with it.
_SECRETS = ("COMFYUI_HEADERS", "WEBHOOK_SECRET", "MESSAGE_SECRET")


# The last of the bases comes first where settings are listed.
class Settings(
    Trust, Webhooks, Traces, Monitoring, Worker, Jobs, Storage, ComfyUI, Broker, BaseSettings
):
    """The effective settings of this process.

    Variables carry the names of the fields' aliases. AWS credentials and region are not here:
    boto3's own chain finds them.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    def masked(self) -> dict[str, str | None]:
        """The effective values by variable name, every secret masked."""
        return {
            field.alias or name: shown(getattr(self, name))
            for name, field in type(self).model_fields.items()
        }

    def require_worker(self) -> "Settings":
        """Return these settings if a worker can run on them.

        Raises:
            SettingsError: something that only workers need is missing.
        """
        if not self.s3_bucket:
            raise SettingsError(
                "S3_BUCKET: found nothing, expected the name of the bucket that receives outputs"
            )
        # Asked for what it raises.
        _ = self.ledger_url
        return self


@cache
def load() -> Settings:
    """Read the environment once and return what it says.

    Raises:
        SettingsError: a variable has a wrong value; names variable, found and expected.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(e) for e in error.errors())) from None


def _sentence(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    # Of a default it is the field's name that is told.
    field = Settings.model_fields.get(name)
    variable = (field and field.alias) or name
    found = MASK if variable in _SECRETS else without_password(str(error["input"]))
    expected = error["msg"].removeprefix("Value error, ")
    expected = expected.removeprefix("Input should be ")
    return f"{variable}: found {found!r}, expected {expected}"
