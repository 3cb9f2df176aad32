"""The ComfyUI server: whether it is one, and one that will do."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.errors import ComfyUIAccessDeniedError, ComfyUIProtocolError, JobError
from tasks.request import label
from workers.checks.finding import Judgement, fail, ok, warn
from workers.comfyui import ComfyUI, Notifications

# The first that takes a prompt's id from whoever posts it.
OLDEST = (0, 3, 45)

# What the tiny render is made of; every ComfyUI has these.
NODES = ("EmptyImage", "PreviewImage")


class ComfyUIChecks:
    """Asks one server. Thread-safe."""

    def __init__(self, comfyui: ComfyUI, timeout: float) -> None:
        """Take a client, whose waits should be short; it stays its maker's to close.

        Args:
            comfyui: the server.
            timeout: seconds that its websocket has to connect.
        """
        self._comfyui = comfyui
        self._timeout = timeout

    def reach(self) -> Judgement:
        """Whether it answers, and is new enough."""
        try:
            self._comfyui.queue()
            return judge_version(self._comfyui.system_stats(), self._comfyui.base_url)
        except JobError as error:
            return judge_error(error)

    def websocket(self) -> Judgement:
        """Whether it says over its websocket what it does."""
        url = self._comfyui.base_url
        notifications = Notifications(
            url, f"doctor-{uuid.uuid4().hex}", headers=self._comfyui.headers, timeout=self._timeout
        )
        notifications.start()
        try:
            if notifications.wait_connected(self._timeout):
                return ok("and tells what it does over its websocket")
        finally:
            notifications.stop()
        return warn(
            f"ComfyUI at {url} answers, but its websocket cannot be connected: jobs end later, and "
            "one that hangs is not noticed",
            "have the proxy before it pass WebSocket upgrades of /ws",
        )

    def nodes(self) -> Judgement:
        """Whether it has the node classes that every ComfyUI has."""
        try:
            lacking = [name for name in NODES if not self._comfyui.object_info(name)]
        except JobError as error:
            return judge_error(error)
        if lacking:
            return fail(
                f"ComfyUI at {self._comfyui.base_url} lacks node classes that come with it: "
                f"{', '.join(lacking)}",
                "install ComfyUI anew, or look into its log for what kept them from loading",
            )
        return ok("and tells its node classes")


def judge_version(stats: Mapping[str, Any], url: str) -> Judgement:
    """What it means that a server says this of itself (`/system_stats`)."""
    system = stats.get("system")
    told = system.get("comfyui_version") if isinstance(system, Mapping) else None
    oldest = ".".join(map(str, OLDEST))
    version = tuple(int(part) for part in re.findall(r"\d{1,9}", str(told))[:3]) if told else ()
    if not version:
        return warn(
            f"ComfyUI at {url} does not tell its version: if it is older than {oldest} it refuses "
            "all jobs",
            f"update it to {oldest} or newer if so",
        )
    if version < OLDEST:
        return fail(
            f"ComfyUI at {url} is {label(str(told), 20)}, which gives prompts ids of its own",
            f"update it to {oldest} or newer",
        )
    return ok(f"ComfyUI {label(str(told), 20)} answers at {url}")


def judge_error(error: JobError) -> Judgement:
    """What it means that the server did not answer as it should."""
    match error:
        case ComfyUIAccessDeniedError():
            return fail(error.message, 'set COMFYUI_HEADERS, as {"Authorization": "Bearer ..."}')
        case ComfyUIProtocolError():
            return fail(error.message, "correct COMFYUI_URL: the base URL of a ComfyUI server")
        case _:
            return fail(
                error.message,
                "start it, with --listen if it is on another host, or correct COMFYUI_URL: http or "
                "https, host, port",
            )
