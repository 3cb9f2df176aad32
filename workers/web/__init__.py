"""Asking hosts that a job names, and none that it has no business with."""

from workers.web.addresses import OpenHosts
from workers.web.errors import ForbiddenError, TooSlowError, UnusableError, WebError
from workers.web.fetch import Answer, Reply, Web

__all__ = [
    "Answer",
    "ForbiddenError",
    "OpenHosts",
    "Reply",
    "TooSlowError",
    "UnusableError",
    "Web",
    "WebError",
]
