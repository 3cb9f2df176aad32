"""Whether anybody works on the queue."""

from collections.abc import Callable, Sequence

from tasks.errors import JobError
from workers.checks.finding import Judgement, fail, ok, warn
from workers.ledger.servers import Server, Servers


def check_workers(open_servers: Callable[[], Servers]) -> Judgement:
    """Whether workers have told of servers lately that take jobs."""
    try:
        with open_servers() as servers:
            return judge_workers(servers.live())
    except JobError as error:
        return fail(error.message, "see what is said of Redis above")


def judge_workers(live: Sequence[Server]) -> Judgement:
    """What it means that these servers were told of."""
    ready = sum(one.takes_jobs for one in live)
    if not live:
        return warn(
            "no worker has told of its server lately: jobs will wait",
            "start one: celery -A workers worker",
        )
    if not ready:
        return warn(
            f"none of {len(live)} live servers takes jobs: they will wait",
            "see the workers' logs for what they wait for",
        )
    return ok(f"{ready} of {len(live)} live servers take jobs")
