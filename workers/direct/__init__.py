"""One workflow on one server, without a queue and without a store."""

from workers.direct.spine import execute

__all__ = ["execute"]
