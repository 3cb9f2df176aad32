"""What a worker looks at before it is one; whoever would never work ends here, and says why."""

import sys
from typing import NoReturn

from settings import Settings, SettingsError, load
from workers.checks.finding import Judgement
from workers.checks.start import in_words, look_at_host, look_at_servers


def worker_settings() -> Settings:
    """The settings, if a worker can be started with them."""
    try:
        return load().require_worker()
    except SettingsError as error:
        leave(error)


def look_around(settings: Settings) -> list[Judgement]:
    """What is to be told in the log, of what a worker depends on and of its host."""
    found = [*look_at_servers(settings), *look_at_host(settings)]
    if hopeless := [one for one in found if not one.heals]:
        leave(SettingsError("\n".join(map(in_words, hopeless))), "no worker can work like this")
    return found


def leave(error: SettingsError, what: str = "wrong settings") -> NoReturn:
    """End the process as one that would never work: the reason on stderr, exit code 2."""
    print(f"comfyfleet: {what}\n{error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)
