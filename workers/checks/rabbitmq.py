"""RabbitMQ as the broker."""

import re
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, NotFound, PreconditionFailed
from kombu import Connection

from settings import rabbitmq
from settings.celery import QUEUE
from settings.masking import without_password
from workers.checks.finding import Judgement, Status, fail, ok, warn

# As docs/brokers.md has it: with this one all of it was tried, and from it on the queues of a vhost
# can be quorum queues by default.
OLDEST = (3, 10)
# Seconds for the connection, and for each answer.
_PATIENCE = 2.5


def check_rabbitmq(url: str) -> Judgement:
    """Whether it lets this user in, and is one that will do; of several nodes each is asked."""
    nodes = url.split(";")
    with ThreadPoolExecutor(len(nodes)) as pool:
        return judge_nodes(list(pool.map(_check_node, nodes)))


def judge_nodes(found: Sequence[Judgement]) -> Judgement:
    """What it means that the nodes of a cluster are like this: one that will do is enough."""
    wrong = [one for one in found if one.status is Status.FAIL]
    if len(wrong) == len(found) or any(not one.heals for one in wrong):
        return next((one for one in wrong if not one.heals), wrong[0])
    if wrong:
        return warn(f"{wrong[0].sentence}; another node answers", wrong[0].fix)
    return found[0]


def _check_node(url: str) -> Judgement:
    name = f"CELERY_BROKER_URL ({without_password(url)})"
    tls = rabbitmq.common_options(url).get("broker_use_ssl", False)
    patience = {"read_timeout": _PATIENCE, "write_timeout": _PATIENCE}
    node = Connection(url, ssl=tls, connect_timeout=_PATIENCE, transport_options=patience)
    try:
        with closing(node.transport.establish_connection()) as connection:
            return judge_server(connection.server_properties, _type_of_queue(connection), name)
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
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason
        return fail(
            f"{name} does not agree on TLS ({why})",
            "have its certificate name the URL's host, and SSL_CERT_FILE who has issued it; "
            "amqp:// where it wants no TLS",
        )
    except (AMQPError, OSError) as error:
        return fail(
            f"{name} cannot be connected ({type(error).__name__})",
            "start it, or correct host and port; amqps:// where it wants TLS",
        )


def _type_of_queue(connection: Any) -> str | None:
    """The type of the queue in which jobs wait; None if it is not there, or not told."""
    try:
        connection.channel().queue_declare(QUEUE, passive=True)
        connection.channel().queue_declare(
            QUEUE, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
        )
    except PreconditionFailed:
        # It is there, as another one than was declared.
        return "classic"
    except (NotFound, AccessRefused):
        return None
    return "quorum"


def judge_server(told: dict[str, Any], kind: str | None, name: str) -> Judgement:
    """What it means that a server says this of itself, and has the queue as of this type."""
    version = str(told.get("version") or "")
    if tuple(int(part) for part in re.findall(r"\d+", version)) < OLDEST:
        return fail(
            f"{name} is {told.get('product') or 'a broker'} {version or 'of no version'}, on which "
            "nothing of this was tried",
            f"use RabbitMQ {'.'.join(map(str, OLDEST))} or newer",
            heals=False,
        )
    queue = f"is of the type {kind}" if kind else "is not there yet, or its type is not told"
    return ok(
        f"{name} answers: {told.get('product')} {version}; queue {QUEUE} {queue}; it does not tell "
        "its consumer_timeout (docs/brokers.md)"
    )
