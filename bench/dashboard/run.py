"""A fleet under load that things happen to, and the dashboard of its last minutes."""

import math
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery import Celery

from bench.dashboard.draw import svg
from bench.dashboard.model import panels
from bench.dashboard.prometheus import scraping
from cli.graphs import text_to_image
from sandbox.comfyui.model_files import CHECKPOINTS
from sandbox.processes import ChildProcess, free_ports
from sandbox.proxy import Mode, TcpProxy
from sandbox.stack import Stack, StandIn

_DASHBOARD = Path(__file__).parents[2] / "deploy/observe/grafana/dashboards/comfyfleet.json"

_SERVERS = 4
_SECONDS, _QUICK_SECONDS = 300.0, 60.0
# Of a prompt, without what it has to load.
_STEP_SECONDS, _LOAD_SECONDS = 0.1, 3.0
# Jobs a second, on an average and how much more or less; one period.
_RATE, _SWING, _PERIOD_SECONDS = 1.5, 0.8, 200.0
_TICK_SECONDS = 0.1
# Of all jobs.
_BROKEN, _TOO_LARGE = 0.04, 0.02

# Parts of the time in which something is away, or at which a worker dies.
_KILLED, _BACK = 0.3, 0.36
_SERVER_AWAY, _SERVER_BACK = 0.5, 0.6
_STORE_AWAY, _STORE_BACK = 0.75, 0.82

Tell = Callable[[str], None]


class _Fleet:
    """Servers and workers, one each, with what happens to them."""

    def __init__(self, stack: Stack, undo: ExitStack) -> None:
        self._stack = stack
        host, port = stack.seaweedfs.url.rpartition("/")[2].split(":")
        self.store = undo.enter_context(TcpProxy(host, int(port)))
        self.servers = [
            stack.stand_in(step_seconds=_STEP_SECONDS, model_seconds=_LOAD_SECONDS)
            for _ in range(_SERVERS)
        ]
        self.ports = free_ports(_SERVERS)
        self.workers = [self._worker(one) for one in range(_SERVERS)]

    def _worker(self, number: int) -> ChildProcess:
        return self._stack.launch_worker(
            self.servers[number].url,
            {
                "METRICS_PORT": str(self.ports[number]),
                "METRICS_HOST": "127.0.0.1",
                "S3_ENDPOINT_URL": f"http://{self.store.address}",
                "WARM_WAIT_SECONDS": "8",
            },
        )

    def kill_worker(self) -> None:
        self.workers[0].kill()

    def start_worker(self) -> None:
        self.workers[0] = self._worker(0)

    @property
    def weak_server(self) -> StandIn:
        return self.servers[1]


def draw_dashboard(*, quick: bool, tell: Tell) -> str:
    """The dashboard as an SVG, after minutes of a fleet's life."""
    seconds = _QUICK_SECONDS if quick else _SECONDS
    with ExitStack() as undo:
        stack = undo.enter_context(Stack())
        fleet = _Fleet(stack, undo)
        targets = [f"127.0.0.1:{port}" for port in fleet.ports]
        prometheus = undo.enter_context(scraping(targets, stack.folder("prometheus")))
        began = time.time()
        with Celery(broker=stack.valkey.url, set_as_current=False) as producer:
            _live(fleet, producer, seconds, tell)
        ended = time.time()
        drawn = [
            (panel, [one for query in panel.queries for one in prometheus.ask(query, began, ended)])
            for panel in panels(_DASHBOARD.read_text())
        ]
    return svg(drawn, f"comfyfleet: {_SERVERS} workers on stand-in servers")


def _live(fleet: _Fleet, producer: Celery, seconds: float, tell: Tell) -> None:
    happenings = [
        (_KILLED, "a worker is killed", fleet.kill_worker),
        (_BACK, "it is started again", fleet.start_worker),
        (_SERVER_AWAY, "a server is killed", fleet.weak_server.kill),
        (_SERVER_BACK, "it is started again", fleet.weak_server.start),
        (_STORE_AWAY, "the store is away", lambda: fleet.store.set(Mode.REFUSE)),
        (_STORE_BACK, "it is back", lambda: fleet.store.set(Mode.PASS)),
    ]
    chance = random.Random(7)  # noqa: S311  # no secret
    began, due, sent = time.monotonic(), 0.0, 0
    while (passed := time.monotonic() - began) < seconds:
        while happenings and passed >= happenings[0][0] * seconds:
            _, told, happen = happenings.pop(0)
            tell(f"{passed:.0f} s: {told}")
            happen()
        rate = _RATE + _SWING * math.sin(2 * math.pi * passed / _PERIOD_SECONDS)
        due += rate * _TICK_SECONDS
        while sent < due:
            sent += 1
            _send(producer, sent, chance)
        time.sleep(_TICK_SECONDS)
    tell(f"{sent} jobs were sent")


def _send(producer: Celery, number: int, chance: random.Random) -> None:
    fate, priority = chance.random(), chance.choice((0, 3, 9))
    if fate < _BROKEN:
        workflow = _bars(number, "error")
    elif fate < _BROKEN + _TOO_LARGE:
        workflow = _bars(number, "oom")
    else:
        workflow = text_to_image(chance.choice(CHECKPOINTS[:2]), "a cat", number)
    producer.send_task(
        "comfyui.run_workflow",
        kwargs={"workflow": workflow},
        queue="comfyui",
        priority=priority,
        headers={"enqueued_at": time.time()},
    )


def _bars(seed: int, mode: str) -> dict[str, Any]:
    """A workflow that ends as it is told."""
    inputs = {"seconds": 0.5, "steps": 5, "width": 64, "height": 64, "batch_size": 1}
    return {
        "1": {"class_type": "BarsRender", "inputs": {**inputs, "seed": seed, "mode": mode}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
