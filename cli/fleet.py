"""How commands reach the fleet: its ledger, as the environment names it."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from cli.errors import CommandError
from settings import load
from tasks.errors import BrokerUnavailableError
from workers.ledger import Ledger


@contextmanager
def open_ledger() -> Iterator[Ledger]:
    """The fleet's ledger.

    Raises:
        CommandError: Redis is away, or holds what this version cannot read.
        BrokerFullError: Redis has no memory left for what was to be written.
    """
    settings = load()
    try:
        with Ledger(settings.ledger_url) as ledger:
            yield ledger
    except BrokerUnavailableError as error:
        url = settings.masked()["CELERY_BROKER_URL"]
        raise CommandError(f"{error.message}; CELERY_BROKER_URL is {url}") from error
    except ValidationError as error:
        raise CommandError(
            "Redis holds an entry that cannot be read; perhaps another version has written it"
        ) from error
