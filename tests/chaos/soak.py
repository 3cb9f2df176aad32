"""Runs a schedule against a fleet, and gathers what it left behind."""

import hashlib
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from sandbox.processes import ChildProcess
from sandbox.stack import Start
from tests.chaos.accounting import (
    Evidence,
    Manifest,
    Report,
    Run,
    Sign,
    Stored,
    account,
)
from tests.chaos.fleet import Fleet
from tests.chaos.producer import Producer
from tests.chaos.schedule import Fault, Kind, PlannedJob, Schedule
from tests.stack import Workflow, bars
from workers.execution.job import prompt_id

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Of all workers; short where a soak could not wait for the default.
SETTINGS = {
    "STALL_SECONDS": "15",
    "S3_PATIENCE_SECONDS": "60",
    "COMFYUI_READ_TIMEOUT_SECONDS": "5",
    "COMFYUI_CONNECT_TIMEOUT_SECONDS": "2",
}

_LOOK_SECONDS = 0.25
_TELL_SECONDS = 15.0
# Seconds that messages of ended jobs may lie there before the account is made without them.
_SETTLE_SECONDS = 45.0
_STEP_SECONDS = 0.1
_READERS = 8
_MOST_ATTEMPTS = 60


def soak(
    schedule: Schedule,
    *,
    workers: int,
    patience: float,
    settings: Mapping[str, str] | None = None,
    logs: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
    start: Start = ChildProcess,
) -> Report:
    """Run a schedule from end to end.

    Args:
        schedule: jobs and faults.
        workers: how many workers, and as many ComfyUI servers.
        patience: seconds without any job's end after which the rest is given up.
        settings: of the workers, beside `SETTINGS`.
        logs: a folder for the logs of all workers and servers, and the evidence.
        tell: is told how far it is.
        start: what starts workers and servers.
    """
    with Fleet.started(workers, {**SETTINGS, **(settings or {})}, start) as fleet:
        tell(f"{workers} workers, {len(schedule.jobs)} jobs, {len(schedule.faults)} faults")
        with _Soak(fleet, tell).running() as running:
            running.play(schedule)
            running.wait(patience)
            evidence = running.evidence()
        report = account(evidence)
        if logs is not None:
            _keep(fleet, running.timeline, evidence, report, logs)
        return report


class _Soak:
    """One run: who was sent, cancelled and hurt."""

    def __init__(self, fleet: Fleet, tell: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._tell = tell
        self._started = time.monotonic()
        self._told = 0.0
        self._stopping = threading.Event()
        self._producer = Producer(fleet.valkey.url, self._stopping)
        # Orders to the broker wait while it is away; faults go on meanwhile.
        self._orders = ThreadPoolExecutor(_READERS)
        self._pending: list[Future[None]] = []
        self._cancelled: dict[str, float] = {}
        self._poison: set[str] = set()
        self._workflows: dict[str, Workflow] = {}
        self._faults: Counter[str] = Counter()
        self.timeline: list[str] = []
        """What happened when, as local time."""

    @contextmanager
    def running(self) -> Iterator["_Soak"]:
        try:
            yield self
        finally:
            self._stopping.set()
            self._orders.shutdown(cancel_futures=True)
            self._producer.close()

    def play(self, schedule: Schedule) -> None:
        """Send the jobs and let the faults happen, each at its time."""
        order = count()
        due = [
            *((job.at, next(order), self._job(job)) for job in schedule.jobs),
            *((fault.at, next(order), self._fault(fault)) for fault in schedule.faults),
        ]
        heapify(due)
        self._started = time.monotonic()
        while due:
            at, number, act = heappop(due)
            self._look_until(self._started + at)
            # One that lasts says for how many seconds, and goes on then.
            if (seconds := next(act, None)) is not None:
                heappush(due, (self._now() + seconds, number, act))
        self._fleet.quiesce()

    def wait(self, patience: float) -> None:
        """Wait until every job has ended and no message is left."""
        for order in self._pending:
            order.result()
        ended, since = -1, time.monotonic()
        while self._producer.open_jobs() and time.monotonic() - since < patience:
            self._look_until(time.monotonic() + _LOOK_SECONDS)
            if len(self._producer.endings) != ended:
                ended, since = len(self._producer.endings), time.monotonic()
        if self._producer.open_jobs():
            return
        deadline = time.monotonic() + _SETTLE_SECONDS
        while self._producer.messages() and time.monotonic() < deadline:
            self._look_until(time.monotonic() + _LOOK_SECONDS)
        self._producer.look(again=True)

    def evidence(self) -> Evidence:
        """All that the soak left behind."""
        now = time.time()
        fleet, producer = self._fleet, self._producer
        deaths = fleet.deaths()
        places = {f"http://{s.proxy.address}": number for number, s in enumerate(fleet.servers)}
        runs = [
            Run(number, execution.prompt_id, execution.began, execution.ended)
            for number, server in enumerate(fleet.servers)
            for execution in server.stand_in.execution_log()
        ]
        lived = [
            Run(run.server, run.prompt_id, run.began, now)
            # What runs still is over with the account.
            if run.ended is None
            and not any(d.server == run.server and d.since >= run.began for d in deaths)
            else run
            for run in runs
        ]
        manifests, objects = _stored(fleet)
        return Evidence(
            accepted=set(producer.accepted),
            endings=dict(producer.endings),
            manifests=manifests,
            objects=objects,
            runs=lived,
            prompts={
                prompt_id(job_id, attempt): job_id
                for job_id in self._workflows
                for attempt in range(1, _MOST_ATTEMPTS)
            },
            deaths=deaths,
            pauses=fleet.pauses(),
            departures=fleet.departures(),
            broker_ends=fleet.broker_ends,
            signs=[
                Sign(job_id, places[instance], since, at)
                for job_id, instance, since, at in producer.signs
            ],
            cancelled=self._cancelled,
            poison=self._poison,
            dead_letters=producer.dead_letters(),
            faults=dict(self._faults),
            crashes=sum(worker.crashes for worker in fleet.workers),
        )

    def _now(self) -> float:
        return time.monotonic() - self._started

    def _look_until(self, moment: float) -> None:
        """Watch the jobs until then, on the monotonic clock."""
        while True:
            self._producer.look()
            if self._now() >= self._told + _TELL_SECONDS:
                self._told = self._now()
                ended, sent = len(self._producer.endings), len(self._producer.accepted)
                faults = self._faults.total()
                self._tell(f"{self._told:4.0f} s: {ended} of {sent} ended, {faults} faults")
            if (rest := moment - time.monotonic()) <= 0:
                return
            time.sleep(min(rest, _LOOK_SECONDS))

    def _order(self, act: Callable[..., None], *arguments: Any) -> None:
        self._pending.append(self._orders.submit(act, *arguments))

    def _send(self, job_id: str, workflow: Workflow) -> None:
        self._workflows[job_id] = workflow
        self._order(self._producer.send, job_id, workflow)

    def _job(self, job: PlannedJob) -> Iterator[float]:
        steps = max(1, round(job.seconds / _STEP_SECONDS))
        self._send(job.id, bars(job.seed, seconds=job.seconds, steps=steps))
        yield from ()

    def _fault(self, fault: Fault) -> Iterator[float]:
        """Let it happen; one that lasts yields its seconds, and ends when it goes on."""
        self._faults[fault.kind] += 1
        what = f"{fault.kind} {fault.target}, {fault.seconds:.1f} s"
        self.timeline.append(f"{time.strftime('%H:%M:%S')} {what}")
        match fault.kind:
            case Kind.CANCEL | Kind.DUPLICATE:
                self._disturb(fault)
            case Kind.POISON:
                job_id = f"poison-{fault.target:02}"
                self._poison.add(job_id)
                self._send(job_id, _poison(fault.target))
            case _:
                yield from self._fleet.hurt(fault)

    def _cancel(self, job_id: str) -> None:
        self._producer.cancel(job_id)
        self._cancelled[job_id] = time.time()

    def _disturb(self, fault: Fault) -> None:
        """Cancel one of the oldest open jobs, or send it twice more."""
        open_jobs = [
            job_id
            for job_id in self._producer.open_jobs()
            if job_id not in self._poison and job_id not in self._cancelled
        ]
        if not open_jobs:
            return
        job_id = open_jobs[fault.target % len(open_jobs)]
        if fault.kind is Kind.CANCEL:
            self._order(self._cancel, job_id)
        else:
            for _ in range(2):
                self._order(self._producer.send, job_id, self._workflows[job_id])


def _poison(number: int) -> Workflow:
    """A workflow that kills whichever server executes it."""
    workflow = bars(2**32 + number, seconds=_STEP_SECONDS)
    workflow["3"] = {
        "class_type": "SandboxFault",
        "inputs": {"images": ["1", 0], "fault": "die"},
    }
    workflow["2"]["inputs"]["images"] = ["3", 0]
    return workflow


def _stored(fleet: Fleet) -> tuple[list[Manifest], dict[str, Stored]]:
    """Everything in the bucket, read byte by byte."""
    seaweedfs = fleet.stack.seaweedfs
    credentials = seaweedfs.credentials
    s3: S3Client = boto3.client(
        "s3",
        endpoint_url=seaweedfs.url,
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        region_name=credentials["AWS_DEFAULT_REGION"],
    )
    listed: dict[str, float] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=seaweedfs.bucket):
        for item in page.get("Contents", []):
            listed[item["Key"]] = item["LastModified"].timestamp()

    def read(key: str) -> bytes:
        return s3.get_object(Bucket=seaweedfs.bucket, Key=key)["Body"].read()

    with ThreadPoolExecutor(_READERS) as readers:
        contents = dict(zip(listed, readers.map(read, listed), strict=True))
    s3.close()
    objects = {
        key: Stored(len(content), hashlib.sha256(content).hexdigest())
        for key, content in contents.items()
    }
    manifests = [
        # The folder is named after the job.
        Manifest(key, key.split("/")[-2], listed[key], _parsed(content))
        for key, content in contents.items()
        if key.endswith("/manifest.json")
    ]
    return manifests, objects


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        return dict(json.loads(content))
    except ValueError:
        return None


def _keep(
    fleet: Fleet, timeline: list[str], evidence: Evidence, report: Report, folder: Path
) -> None:
    """Copy what a person needs to find out why."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, log in fleet.logs().items():
        shutil.copy(log, folder / f"{name}.log")
    (folder / "faults.txt").write_text("\n".join(timeline))
    (folder / "evidence.txt").write_text(f"{evidence}\n\n{report}\n")
