"""RabbitMQ as broker, from the `rabbitmq-server` that the system has."""

import base64
import hashlib
import json
from itertools import count
from pathlib import Path

import amqp

from sandbox.processes import ChildProcess, kept_port

# Where packages put the server itself; what they put into the PATH starts it as another user.
_SERVERS = (
    Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    Path("/opt/rabbitmq/sbin/rabbitmq-server"),
)

# What docs/brokers.md has operators set.
POLICY_PATTERN = r"^comfyui(?!\.returned)"
POLICY = {
    "dead-letter-exchange": "",
    "dead-letter-routing-key": "comfyui.returned",
    "delivery-limit": 100,
}

_SALT = b"salt"
# A machine that is busy takes its time.
_START_SECONDS = 120.0


def find_server() -> Path | None:
    """The program that starts a RabbitMQ server, if there is one."""
    return next((one for one in _SERVERS if one.exists()), None)


class RabbitMQ:
    """A RabbitMQ server of its own: its ports, its data, its name, its cookie.

    In half of its vhosts queues are of the type "quorum" unless somebody says otherwise, and the
    policy of docs/brokers.md holds.
    """

    def __init__(self, directory: Path, *, vhosts: int = 1) -> None:
        """Start it, with its data in the directory, and wait until it answers.

        Args:
            directory: for its data.
            vhosts: how many there are for each type of queue.
        """
        server = find_server()
        if server is None:
            raise FileNotFoundError("rabbitmq-server is not installed")
        self._server = server
        self._directory = directory
        self.port, self._mapper_port, self._node_port = (kept_port(self) for _ in range(3))
        self._serials = {kind: count(1) for kind in ("classic", "quorum")}
        (directory / "home").mkdir()
        (directory / "plugins").write_text("[].")
        (directory / "definitions.json").write_text(json.dumps(_definitions(vhosts)))
        self.configure()
        # Erlang would start one for the whole machine, and leave it there.
        self._mapper = ChildProcess(
            ["epmd", "-port", str(self._mapper_port), "-address", "127.0.0.1"],
            directory / "epmd.log",
        )
        try:
            self.start()
        except BaseException:
            self._mapper.stop()
            raise

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    def vhost(self, kind: str = "classic") -> str:
        """A vhost that nobody has used yet, whose queues are "classic" or "quorum" by default."""
        return f"{kind}{next(self._serials[kind])}"

    def url(self, vhost: str, address: str | None = None) -> str:
        """The URL of a vhost, perhaps by way of another address."""
        return f"amqp://guest:guest@{address or self.address}/{vhost}"

    def start(self) -> None:
        """Start it again on its port and its data, after a `stop` or a `kill`."""
        folder = self._directory
        self.process = ChildProcess(
            [self._server],
            folder / "rabbitmq.log",
            env={
                "HOME": str(folder / "home"),
                "ERL_EPMD_PORT": str(self._mapper_port),
                "ERL_EPMD_ADDRESS": "127.0.0.1",
                "RABBITMQ_NODENAME": "comfyfleet@localhost",
                "RABBITMQ_DIST_PORT": str(self._node_port),
                "RABBITMQ_CONF_ENV_FILE": "/dev/null",
                "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
                "RABBITMQ_MNESIA_BASE": str(folder / "data"),
                "RABBITMQ_LOG_BASE": str(folder),
                "RABBITMQ_PID_FILE": str(folder / "pid"),
                # The server in the place of the script, so that signals reach it.
                "RABBITMQ_ALLOW_INPUT": "true",
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput +S 2:2 +sbwt none "
                # Seconds it takes at most to see that a message was held for too long.
                "-rabbit channel_tick_interval 1000",
            },
        )
        self.process.wait_until(self._answers, _START_SECONDS)

    def configure(self, *options: str) -> None:
        """Have these lines in its configuration from its next start on."""
        definitions = self._directory / "definitions.json"
        lines = (
            f"listeners.tcp.1 = {self.address}",
            f"load_definitions = {definitions}",
            "log.console = true",
            "log.file = false",
            # A disk that is nearly full would have it take no messages.
            "disk_free_limit.absolute = 50MB",
        )
        (self._directory / "rabbitmq.conf").write_text("\n".join((*lines, *options)))

    def stop(self) -> None:
        """Stop it; its data stay."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once; what it has confirmed stays."""
        self.process.kill()

    def close(self) -> None:
        """Stop it, and what it needs."""
        self.process.stop()
        self._mapper.stop()

    def _answers(self) -> bool:
        try:
            with amqp.Connection(self.address, virtual_host="classic1", connect_timeout=1):
                return True
        except (TimeoutError, OSError, amqp.AMQPError):
            return False


def _definitions(vhosts: int) -> dict[str, object]:
    """What there is at the start: a user, and vhosts that it may use."""
    kinds = [kind for kind in ("classic", "quorum") for _ in range(vhosts)]
    names = [f"{kind}{1 + number % vhosts}" for number, kind in enumerate(kinds)]
    password = base64.b64encode(_SALT + hashlib.sha256(_SALT + b"guest").digest()).decode()
    return {
        "users": [{"name": "guest", "password_hash": password, "tags": []}],
        "vhosts": [
            {"name": name, "default_queue_type": kind, "metadata": {"default_queue_type": kind}}
            for name, kind in zip(names, kinds, strict=True)
        ],
        "policies": [
            {
                "name": "comfyfleet",
                "vhost": name,
                "pattern": POLICY_PATTERN,
                "apply-to": "queues",
                "priority": 0,
                "definition": POLICY,
            }
            for name in names
            if name.startswith("quorum")
        ],
        "permissions": [
            {"user": "guest", "vhost": name, "configure": ".*", "write": ".*", "read": ".*"}
            for name in names
        ],
    }
