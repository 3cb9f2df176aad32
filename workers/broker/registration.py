"""Transports of ours in the place of kombu's."""

from collections.abc import Mapping

import kombu.transport

from workers.broker.envelopes import bound_decompression, read_plain_json


def use_transports(
    transports: Mapping[str, type], *, most_body_bytes: int, most_body_values: int
) -> None:
    """Make this process use these transports, and read what comes over them with care.

    Args:
        transports: by the scheme of a broker's URL.
        most_body_bytes: that the body of a message may decompress to.
        most_body_values: that it may have as JSON.
    """
    read_plain_json(most_body_values)
    bound_decompression(most_body_bytes)
    for scheme, transport in transports.items():
        name = f"{transport.__module__}:{transport.__name__}"
        kombu.transport.TRANSPORT_ALIASES[scheme] = name
        # Whoever connected before has left kombu's own there.
        kombu.transport._transport_cache.pop(scheme, None)  # noqa: SLF001
