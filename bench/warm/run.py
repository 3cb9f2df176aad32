"""Shuffled jobs of several models on servers whose loads take time, in one order and the other."""

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from bench.cells import turned
from bench.contenders import Queued
from bench.model import QUEUE, TASK, Execution, Workflow
from bench.rig import Rig, Tell
from bench.servers import Server
from bench.warm.figures import idle_share, loads, rare_run
from bench.warm.model import Order, RareRun, Warm, WarmRun
from cli.graphs import text_to_image
from sandbox.stack import StandIn

_STEPS = 10
_RARE = "rare.safetensors"


def run_warm(rig: Rig, warms: Sequence[Warm], tell: Tell) -> Iterator[WarmRun | RareRun]:
    """Each order in turn, with workers of its own for each time; the crowd after the last one."""
    for warm in warms:
        with ExitStack() as undo:
            fleet = _Fleet(rig, warm, undo)
            for repetition in range(warm.repeat):
                for order in turned(tuple(Order), repetition):
                    yield from fleet.run(order, repetition, tell)


class _Fleet:
    """Servers with the same models, none of them loaded when a run begins."""

    def __init__(self, rig: Rig, warm: Warm, undo: ExitStack) -> None:
        self._rig = rig
        self._warm = warm
        self._names = [f"model-{number}.safetensors" for number in range(1, warm.models + 1)]
        self._seeds = itertools.count(1)
        self._stand_ins = [
            rig.stack.stand_in(
                step_seconds=warm.job_seconds / _STEPS,
                models=[f"checkpoints/{name}" for name in (*self._names, _RARE)],
                model_seconds=warm.load_seconds,
            )
            for _ in range(warm.servers)
        ]
        for stand_in in self._stand_ins:
            undo.callback(stand_in.stop)
        self._servers = [undo.enter_context(Server(one.url)) for one in self._stand_ins]

    def run(self, order: Order, repetition: int, tell: Tell) -> Iterator[WarmRun | RareRun]:
        """The shuffled jobs, and the crowd if it is the last time and the order is not plain."""
        with (
            self._rig.workers(self._servers, order.settings),
            self._rig.producer() as app,
        ):
            self._rig.relay.seconds = 0.0
            queue = Queued(app, TASK, QUEUE)
            # Connections are opened and code is loaded before the clock runs.
            queue.run(self._rig.graphs.batch_of(2 * self._warm.servers, 0.1))
            for server in self._servers:
                server.clear()
                server.free()
            shuffled = self._shuffled(self._warm.jobs * self._warm.models, repetition)
            done = self._mixed(queue, shuffled, order, repetition)
            tell(
                f"{order:10} {self._warm.models} models on {self._warm.servers} servers: "
                f"{done.loads} loads, makespan {done.makespan:.3f} s, idle {done.idle:.3f}"
            )
            yield done
            if order is Order.WARM and repetition == self._warm.repeat - 1:
                rare = self._crowded(queue)
                tell(f"{order:10} rare model: {rare.wait:.3f} s, {rare.late:.3f} s late")
                yield rare

    def _mixed(
        self, queue: Queued, workflows: Sequence[Workflow], order: Order, repetition: int
    ) -> WarmRun:
        sent, ended, executions = self._timed(queue, workflows)
        of_pair = loads(executions)
        return WarmRun(
            warm=self._warm,
            order=order,
            repetition=repetition,
            loads=of_pair.total(),
            pairs=len(of_pair),
            makespan=ended - sent,
            idle=idle_share(executions, self._warm.servers, sent),
        )

    def _crowded(self, queue: Queued) -> RareRun:
        workflows = self._shuffled(self._warm.crowd, self._warm.repeat)
        workflows.insert(self._warm.ahead, self._workflow(_RARE))
        sent, _, executions = self._timed(queue, workflows)
        return rare_run(self._warm, executions, f"checkpoints/{_RARE}", sent)

    def _timed(
        self, queue: Queued, workflows: Sequence[Workflow]
    ) -> tuple[float, float, list[Execution]]:
        """Do them: when they were sent, when the last result came, and what was executed."""
        before = [len(stand_in.execution_log()) for stand_in in self._stand_ins]
        sent = time.time()
        results = queue.run(workflows)
        executions = [
            execution
            for stand_in, count in zip(self._stand_ins, before, strict=True)
            for execution in _executions(stand_in)[count:]
        ]
        return sent, max(result.at for result in results), executions

    def _shuffled(self, jobs: int, seed: int) -> list[Workflow]:
        """The models in an order that is the same for the same seed, however it is taken."""
        names = [self._names[number % len(self._names)] for number in range(jobs)]
        random.Random(seed).shuffle(names)  # noqa: S311  # no secret
        return [self._workflow(name) for name in names]

    def _workflow(self, checkpoint: str) -> Workflow:
        workflow = text_to_image(checkpoint, "a cat", seed=next(self._seeds))
        workflow["3"]["inputs"]["steps"] = _STEPS
        return workflow


def _executions(stand_in: StandIn) -> list[Execution]:
    return [
        Execution(stand_in.url, one.prompt_id, one.began, one.ended or one.began, one.loads)
        for one in stand_in.execution_log()
    ]
