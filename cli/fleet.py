"""How commands reach the fleet: what Redis knows of it, where the environment says."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from cli.errors import CommandError
from settings import Settings, load
from tasks.errors import BrokerUnavailableError, JobError
from workers.ledger import Ledger
from workers.ledger.seam import FOREIGN_ERRORS
from workers.ledger.servers import Servers


@contextmanager
def open_ledger() -> Iterator[Ledger]:
    """The fleet's ledger.

    Raises:
        CommandError: Redis is away, or holds what this version cannot read.
        BrokerFullError: Redis has no memory left for what was to be written.
    """
    settings = load()
    with _explained(settings), Ledger(settings.ledger_url) as ledger:
        yield ledger


@contextmanager
def open_servers() -> Iterator[Servers]:
    """What workers tell of the fleet's servers.

    Raises:
        CommandError: Redis is away.
    """
    settings = load()
    with _explained(settings), Servers(settings.ledger_url) as servers:
        yield servers


@contextmanager
def open_broker() -> Iterator[Settings]:
    """The settings, for whoever asks the broker.

    Raises:
        CommandError: it is away.
    """
    settings = load()
    with _explained(settings):
        yield settings


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    try:
        yield
    except BrokerUnavailableError as error:
        of_redis = isinstance(error.__cause__, FOREIGN_ERRORS)
        variable = settings.ledger_variable if of_redis else "CELERY_BROKER_URL"
        url = settings.masked()[variable]
        raise CommandError(f"{error.message}; {variable} is {url}") from error
    except ValidationError as error:
        raise CommandError(
            "Redis holds an entry that cannot be read; perhaps another version has written it"
        ) from error


@contextmanager
def answering() -> Iterator[None]:
    """Tell what it means that the result backend does not answer.

    Raises:
        CommandError: that it does not.
    """
    try:
        yield
    except (JobError, CommandError):
        raise
    except Exception as error:
        # Each backend has errors of its own.
        url = load().masked()["CELERY_RESULT_BACKEND"]
        raise CommandError(
            f"the result backend did not answer ({type(error).__name__}); "
            f"CELERY_RESULT_BACKEND is {url}"
        ) from error
