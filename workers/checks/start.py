"""What is looked at before a worker begins: what can never become well by itself ends it."""

from contextlib import closing
from functools import partial

from settings import Settings
from settings.lookalikes import in_environment
from workers.bootstrap.clients import redis_client
from workers.checks.disk import check_disk
from workers.checks.environment import judge_settings
from workers.checks.finding import Judgement, Status
from workers.checks.rabbitmq import check_rabbitmq
from workers.checks.redis_server import SCHEMES, RedisChecks, redis_servers

# Seconds that each answer may take: a server that is away is waited for later.
_ASK_SECONDS = 2.0


def look_at_servers(settings: Settings) -> list[Judgement]:
    """What is to be known of the servers that carry jobs, and keep what workers agree on."""
    broker = settings.broker_url.get_secret_value()
    found = [] if broker.startswith(SCHEMES) else [check_rabbitmq(broker)]
    for variable, url in redis_servers(settings):
        opened = partial(redis_client, url, _ASK_SECONDS)
        with closing(RedisChecks(opened, variable, url)) as checks:
            reached = checks.reach()
            found.append(reached)
            if reached.status is Status.OK:
                found += [checks.eviction(), checks.memory(), checks.persistence(), checks.clock()]
    return [one for one in found if one.status is not Status.OK]


def look_at_host(settings: Settings) -> list[Judgement]:
    """What is to be known of this process's environment and its disk."""
    known = {str(field.alias) for field in type(settings).model_fields.values()}
    found = (
        judge_settings(settings, in_environment(known)),
        check_disk(settings.inputs_max_bytes),
    )
    return [one for one in found if one.status is not Status.OK]


def in_words(judgement: Judgement) -> str:
    """A line for the log."""
    return f"{judgement.sentence} (fix: {judgement.fix})"
