"""How a worker comes by its server, and who it is with it."""

import os
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from celery.utils.nodenames import gethostname

from settings import Settings
from workers.bootstrap.clients import comfyui_client
from workers.ledger import Ledger
from workers.ledger.pins import Pins
from workers.lifecycle.pinning import Pinning
from workers.lifecycle.probing import PROBE_SECONDS, answering
from workers.lifecycle.spare import Spare


def node_name(settings: Settings) -> str:
    """The worker's name: unique as each worker on a host has a server of its own, or says so."""
    instance = urlsplit(settings.comfyui_url)
    place = f"{instance.hostname}-{instance.port or instance.scheme}{instance.path}"
    shared = f"-{os.getpid()}" if settings.comfyui_shared else ""
    return f"{place.replace('/', '-')}{shared}@{gethostname()}"


def pinning(settings: Settings, name: str | None, on_wait: Callable[[], None]) -> Pinning:
    """What finds a server for a worker, which has this name or one that follows its server."""

    def name_at(url: str) -> str:
        return name or node_name(pinned_to(settings, url))

    return Pinning(
        Pins(settings.ledger_url),
        settings.comfyui_servers,
        name=name_at,
        answering=partial(answering, client=partial(comfyui_client, _hasty(settings))),
        on_wait=on_wait,
    )


def spare_of(settings: Settings) -> Spare:
    """What tells of this process while it waits for a server."""
    return Spare(Ledger(settings.ledger_url), settings.worker_slots)


def pinned_to(settings: Settings, url: str) -> Settings:
    """The settings of a worker that drives this server."""
    return settings.model_copy(update={"comfyui_url": url})


def _hasty(settings: Settings) -> Settings:
    """The same for a server that answers at once or does not count."""
    names = ("comfyui_connect_timeout_seconds", "comfyui_read_timeout_seconds")
    return settings.model_copy(
        update={name: min(getattr(settings, name), PROBE_SECONDS) for name in names}
    )
