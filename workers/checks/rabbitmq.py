"""RabbitMQ as the broker."""

import re
from typing import Any

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed
from kombu import Connection

from settings.masking import without_password
from workers.checks.finding import Judgement, fail, ok

# The first whose quorum queues know priorities is 4.0; those of the older ones know none, and are
# there from 3.8 on.
_OLDEST = (3, 8)
_CONNECT_SECONDS = 4.0


def check_rabbitmq(url: str) -> Judgement:
    """Whether it lets this user in, and is one that will do."""
    name = f"CELERY_BROKER_URL ({without_password(url)})"
    try:
        with Connection(url, connect_timeout=_CONNECT_SECONDS) as connection:
            told = connection.connect().server_properties
    except AccessRefused:
        return fail(
            f"{name} refuses the user or the password",
            "put the right ones into the URL, amqp://USER:PASSWORD@HOST:5672/VHOST, with special "
            "characters percent-encoded",
            heals=False,
        )
    except NotAllowed:
        return fail(
            f"{name} has no such virtual host, or does not let this user use it",
            "make it (rabbitmqctl add_vhost, set_permissions), or correct the URL's path",
            heals=False,
        )
    except (AMQPError, OSError) as error:
        return fail(
            f"{name} cannot be connected ({type(error).__name__})",
            "start it, or correct host and port; amqps:// where it wants TLS",
        )
    return judge_server(told, name)


def judge_server(told: dict[str, Any], name: str) -> Judgement:
    """What it means that a server says this of itself."""
    version = str(told.get("version") or "")
    if tuple(int(part) for part in re.findall(r"\d+", version)) < _OLDEST:
        return fail(
            f"{name} is {told.get('product') or 'a broker'} {version or 'of no version'}, which "
            "has no quorum queues",
            "use RabbitMQ 3.8 or newer",
            heals=False,
        )
    return ok(f"{name} answers: {told.get('product')} {version}")
