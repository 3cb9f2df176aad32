"""`python -m tests.faults.rabbitmq_table`: what core faults cost where the broker is RabbitMQ."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sandbox.processes import end_as_interrupted
from sandbox.proxy import Mode
from sandbox.rabbitmq import RabbitMQ
from sandbox.stack import Stack
from tests.faults.rabbitmq import RabbitFleet
from tests.faults.scenes import eventually, executing, sampled
from tests.stack import bars

KINDS = ("classic", "quorum")

# Hurts a fleet that executes a job, and says when.
Fault = Callable[[RabbitFleet], tuple[str, float]]

# After which somebody has looked again at a job that another worker has.
_LOOK_SECONDS = 12.0

# RabbitMQ 3.10 has queues without a leader if it is killed just after they were declared.
_SETTLED_SECONDS = 12.0


def nothing(fleet: RabbitFleet) -> tuple[str, float]:
    """No fault: what the job takes by itself."""
    fleet.worker(fleet.server())
    return fleet.send(bars(1, seconds=3, steps=30)).id, time.monotonic()


def killed(fleet: RabbitFleet) -> tuple[str, float]:
    """The worker is killed, and started again for its server."""
    server = fleet.server()
    worker = fleet.worker(server)
    job = fleet.send(bars(1, seconds=20, steps=200))
    executing(server)
    worker.kill()
    at = time.monotonic()
    fleet.worker(server)
    return job.id, at


def killed_for_good(fleet: RabbitFleet) -> tuple[str, float]:
    """The worker is killed, and another server has a worker."""
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    worker = fleet.worker(slow)
    job = fleet.send(sampled(steps=120))
    executing(slow)
    fleet.worker(fast)
    worker.kill()
    return job.id, time.monotonic()


def asked_to_leave(fleet: RabbitFleet) -> tuple[str, float]:
    """SIGTERM with no grace, and another server has a worker."""
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    worker = fleet.worker(slow)
    job = fleet.send(sampled(steps=120))
    executing(slow)
    fleet.worker(fast)
    worker.send_signal(signal.SIGTERM)
    return job.id, time.monotonic()


def cut(fleet: RabbitFleet) -> tuple[str, float]:
    """The connection is cut for a moment while the job executes for 6 s more."""
    proxy = fleet.proxy(f"amqp://{fleet.rabbitmq.address}")
    server = fleet.server()
    url = fleet.rabbitmq.url(fleet.vhost, proxy.address)
    worker = fleet.worker(server, CELERY_BROKER_URL=url)
    job = fleet.send(bars(1, seconds=6, steps=60))
    executing(server)
    proxy.set(Mode.REFUSE)
    at = time.monotonic()
    eventually(lambda: "no connection to" in worker.log.read_text())
    proxy.set(Mode.PASS)
    return job.id, at


def comfyui_killed(fleet: RabbitFleet) -> tuple[str, float]:
    """The ComfyUI server is killed and started in mid-prompt."""
    server = fleet.server()
    fleet.worker(server)
    job = fleet.send(bars(1, seconds=3, steps=30))
    executing(server)
    server.kill()
    at = time.monotonic()
    server.start()
    return job.id, at


TOGETHER: tuple[tuple[str, Fault], ...] = (
    ("none (a prompt of 3 s)", nothing),
    ("worker killed and started again (20 s)", killed),
    ("worker killed, another server is there (1.2 s)", killed_for_good),
    ("SIGTERM, another server is there (1.2 s)", asked_to_leave),
    ("connection cut (6 s)", cut),
    ("ComfyUI killed and started (3 s)", comfyui_killed),
)


def told(name: str, fleet: RabbitFleet, job_id: str, at: float) -> str:
    """A line of the table, once the job has ended."""
    result = fleet.job(job_id).get(timeout=120)
    seconds = time.monotonic() - at
    executions, attempts = fleet.executions(), len(result["attempts"])
    most = max(executions.values())
    time.sleep(_LOOK_SECONDS)
    left = "no" if fleet.is_settled() else "YES"
    begun = f"{sum(executions.values())} ({most} a prompt)"
    return f"| {name} | {begun} | {attempts} | {seconds:.1f} | {left} |"


def after_restart(stack: Stack, rabbitmq: RabbitMQ, kind: str, *, kill: bool) -> str:
    """A line about the broker that ends, and is started with a short `consumer_timeout`."""
    with RabbitFleet(stack, rabbitmq, kind) as fleet:
        server = fleet.server()
        fleet.worker(server)
        time.sleep(_SETTLED_SECONDS)
        job = fleet.send(bars(1, seconds=15, steps=150))
        executing(server)
        rabbitmq.configure("consumer_timeout = 3000")
        (rabbitmq.kill if kill else rabbitmq.stop)()
        rabbitmq.start()
        at = time.monotonic()
        how = "killed" if kill else "stopped"
        name = f"RabbitMQ {how} and started, then consumer_timeout of 3 s (15 s)"
        fleet.reconnect()
        return told(f"{kind}: {name}", fleet, job.id, at)


def main() -> None:
    """Play all faults on both types of queues, and print the table."""
    print("| fault (its prompt) | executions | attempts | seconds until the result | left |")
    print("| --- | --- | --- | --- | --- |")
    with Stack() as stack:
        rabbitmq = RabbitMQ(stack.folder("rabbitmq"), vhosts=len(TOGETHER) + 2)
        try:
            for kind in KINDS:
                fleets = [RabbitFleet(stack, rabbitmq, kind) for _ in TOGETHER]

                def play(index: int, fleets: list[RabbitFleet] = fleets, kind: str = kind) -> str:
                    name, fault = TOGETHER[index]
                    with fleets[index] as fleet:
                        return told(f"{kind}: {name}", fleet, *fault(fleet))

                with ThreadPoolExecutor(3) as pool:
                    for line in pool.map(play, range(len(TOGETHER))):
                        print(line, flush=True)
            for kind in KINDS:
                for kill in (False, True):
                    print(after_restart(stack, rabbitmq, kind, kill=kill), flush=True)
        finally:
            rabbitmq.close()


if __name__ == "__main__":
    end_as_interrupted()
    main()
