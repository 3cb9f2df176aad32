"""Telling receivers what becomes of jobs: what is said, how it is signed, when again."""

from workers.webhooks.courier import Courier
from workers.webhooks.notices import Notices
from workers.webhooks.telling import Webhooks

__all__ = ["Courier", "Notices", "Webhooks"]
