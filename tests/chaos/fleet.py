"""A fleet of real processes, each started again when it ends, and the means to hurt it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.processes import ChildProcess, StartupError
from sandbox.proxy import Mode, TcpProxy
from sandbox.stack import Stack, StandIn, Start
from tests.chaos.accounting import Departure, Span
from tests.chaos.schedule import Fault, Kind

# Seconds between looks at whether a process has ended.
_LOOK_SECONDS = 0.02
# Seconds from a process's end to its next start, where no fault says how long.
_RESTART_SECONDS = 2.0


class _Supervised:
    """Starts something again a while after it has ended, as systemd or Docker would."""

    def __init__(self) -> None:
        self.restart_seconds = _RESTART_SECONDS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, daemon=True)

    def running(self) -> bool:
        raise NotImplementedError

    def on_end(self, at: float) -> None:
        """It has ended, at this Unix time."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it again.

        Raises:
            StartupError: it ended at once.
        """
        raise NotImplementedError

    @contextmanager
    def supervision(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()

    def _supervise(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            if self.running():
                continue
            self.on_end(time.time())
            while not self._stopping.wait(self.restart_seconds):
                self.restart_seconds = _RESTART_SECONDS
                try:
                    self.start()
                    break
                except StartupError:
                    # Killed again before it was ready.
                    continue


class Worker(_Supervised):
    """The worker of one ComfyUI server: one process after the other."""

    def __init__(self, launch: Callable[[], ChildProcess]) -> None:
        super().__init__()
        self._launch = launch
        self.processes = [launch()]
        self.departures: list[tuple[float, float]] = []
        self.crashes = 0
        self._told_at: float | None = None

    @property
    def process(self) -> ChildProcess:
        return self.processes[-1]

    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        return " ready." in self.process.log.read_text(errors="replace")

    def running(self) -> bool:
        return self.process.returncode is None

    def on_end(self, at: float) -> None:
        if self._told_at is None:
            self.crashes += 1
        self.departures.append((self._told_at or at, at))
        self._told_at = None

    def start(self) -> None:
        self.processes.append(self._launch())

    def leave(self, number: signal.Signals, restart_seconds: float) -> None:
        """End the process with a signal; one that has ended already is left alone."""
        if self.running():
            self.restart_seconds = restart_seconds
            # Before the signal: the supervisor must not take it for a crash.
            self._told_at = self._told_at or time.time()
            self.process.send_signal(number)


class Server(_Supervised):
    """A stand-in ComfyUI and the proxy through which its worker reaches it."""

    def __init__(self, stand_in: StandIn, proxy: TcpProxy) -> None:
        super().__init__()
        self.stand_in = stand_in
        self.proxy = proxy
        self.deaths: list[tuple[float, float]] = []
        self.pauses: list[tuple[float, float]] = []
        self._died_at = 0.0
        self._paused_at: float | None = None

    def running(self) -> bool:
        return self.stand_in.process.returncode is None

    def on_end(self, at: float) -> None:
        self._died_at = at
        self.deaths.append((at, float("inf")))

    def start(self) -> None:
        self.stand_in.start()
        self.deaths[-1] = (self._died_at, time.time())

    def kill(self, restart_seconds: float) -> None:
        """End it at once."""
        self.restart_seconds = restart_seconds
        self.stand_in.process.send_signal(signal.SIGKILL)

    def hang(self) -> None:
        """Let it do nothing, connections open, until `resume`."""
        if self._paused_at is None:
            self.stand_in.process.pause()
            self._paused_at = time.time()

    def resume(self) -> None:
        """Let it go on; nothing happens to one that does."""
        if self._paused_at is not None:
            self.stand_in.process.resume()
            self.pauses.append((self._paused_at, time.time()))
            self._paused_at = None


class Fleet:
    """A stack with as many workers as ComfyUI servers, each worker pinned to one of them."""

    def __init__(self, stack: Stack, size: int, settings: Mapping[str, str]) -> None:
        """Start everything; `Fleet.started` also stops it.

        Args:
            stack: with one stand-in running.
            size: how many workers.
            settings: of all workers.
        """
        self.stack = stack
        self.valkey = stack.valkey
        self.broker_ends: list[float] = []
        """When the broker was stopped or killed, Unix times in seconds."""
        with ExitStack() as undo:
            self._undo = undo
            self.s3 = self._proxy(stack.seaweedfs.url)
            stand_ins = [stack.comfyui, *(stack.stand_in() for _ in range(size - 1))]
            self.servers = [Server(one, self._proxy(one.url)) for one in stand_ins]
            own = {"S3_ENDPOINT_URL": f"http://{self.s3.address}", **settings}
            self.workers = [Worker(self._launcher(server, own)) for server in self.servers]
            for supervised in (*self.servers, *self.workers):
                undo.enter_context(supervised.supervision())
            self._undo = undo.pop_all()

    @classmethod
    @contextmanager
    def started(
        cls, size: int, settings: Mapping[str, str], start: Start = ChildProcess
    ) -> Iterator["Fleet"]:
        """A running fleet; nothing of it is left afterwards."""
        with Stack(start=start) as stack:
            fleet = cls(stack, size, settings)
            try:
                for worker in fleet.workers:
                    worker.process.wait_until(worker.is_ready)
                yield fleet
            finally:
                fleet.close()

    def close(self) -> None:
        """Stop supervising and close the proxies; the processes are the stack's to stop."""
        self._undo.close()
        for worker in self.workers:
            # They would wait for what is gone, each for its grace.
            worker.process.kill()

    def hurt(self, fault: Fault) -> Iterator[float]:
        """Let it happen; one that lasts yields its seconds, and ends when it goes on."""
        match fault.kind:
            case Kind.KILL_WORKER:
                self.workers[fault.target].leave(signal.SIGKILL, fault.seconds)
            case Kind.TERM_WORKER:
                self.workers[fault.target].leave(signal.SIGTERM, fault.seconds)
            case Kind.KILL_COMFYUI:
                self.servers[fault.target].kill(fault.seconds)
            case Kind.HANG_COMFYUI:
                self.servers[fault.target].hang()
                yield fault.seconds
                self.servers[fault.target].resume()
            case Kind.CUT_COMFYUI:
                self.servers[fault.target].proxy.cut()
            case Kind.RESTART_VALKEY:
                self.broker_ends.append(time.time())
                self.valkey.stop()
                yield fault.seconds
                self._start_valkey()
            case Kind.KILL_VALKEY:
                self.broker_ends.append(time.time())
                self.valkey.kill()
                yield fault.seconds
                self._start_valkey()
            case Kind.REFUSE_S3:
                self.s3.set(Mode.REFUSE)
                yield fault.seconds
                self.s3.set(Mode.PASS)
            case _:
                raise ValueError(f"{fault.kind} is no fault of the fleet")

    def quiesce(self) -> None:
        """End all faults that last."""
        self.s3.set(Mode.PASS)
        for server in self.servers:
            server.resume()
        self._start_valkey()

    def departures(self) -> list[Departure]:
        """Of all worker processes."""
        return [
            Departure(server, *times)
            for server, worker in enumerate(self.workers)
            for times in worker.departures
        ]

    def logs(self) -> dict[str, Path]:
        """The logs of all processes that there were, by a name for each."""
        of_workers = {
            f"worker-{n}-{number:03}": process.log
            for n, worker in enumerate(self.workers)
            for number, process in enumerate(worker.processes)
        }
        of_servers = {
            f"comfyui-{n}": server.stand_in.process.log for n, server in enumerate(self.servers)
        }
        return {**of_workers, **of_servers}

    def deaths(self) -> list[Span]:
        """When which ComfyUI was dead."""
        return [Span(n, *span) for n, server in enumerate(self.servers) for span in server.deaths]

    def pauses(self) -> list[Span]:
        """When which ComfyUI hung."""
        return [Span(n, *span) for n, server in enumerate(self.servers) for span in server.pauses]

    def _start_valkey(self) -> None:
        # It may have been ended twice before it is to start.
        if self.valkey.process.returncode is not None:
            self.valkey.start()

    def _launcher(self, server: Server, settings: Mapping[str, str]) -> Callable[[], ChildProcess]:
        url = f"http://{server.proxy.address}"
        return lambda: self.stack.launch_worker(url, settings)

    def _proxy(self, url: str) -> TcpProxy:
        target = urlsplit(url)
        assert target.hostname
        assert target.port
        return self._undo.enter_context(TcpProxy(target.hostname, target.port))
