"""What this worker's server can do, kept up to date and told to the others."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tasks.errors import ComfyUIProtocolError, InvalidInputError, JobError
from workers.comfyui import ComfyUI
from workers.ledger.servers import Server, Servers
from workers.routing.capabilities import Capabilities
from workers.routing.stats import read_stats

logger = logging.getLogger(__name__)

# Seconds between two tellings; at first workers that start together must hear of each other.
_TELL_SECONDS = 3.0
_TELL_SECONDS_AT_FIRST = 0.5
_SETTLING_SECONDS = 5.0
# Seconds without a word from Redis after which others may have been forgotten there.
_UNHEARD_SECONDS = 30.0
# Seconds that a look holds up the telling.
_LOOK_SECONDS = 3.0
# Seconds after its start in which a worker waits for those that it does not see any more: where all
# are started again, some take longer.
_RETURNING_SECONDS = 60.0
# Seconds after a worker's start for which others count on its server though that has not said yet
# what it can do: it may take longer to start than its worker.
_UNKNOWN_SECONDS = 300.0
# Seconds between two looks at the model files, which cost the server little.
_MODELS_SECONDS = 30.0
# Seconds between two looks at everything: to tell of all its nodes keeps a server busy.
_ALL_SECONDS = 600.0
# Seconds after a look in which a complaint is no reason for another one.
_FRESH_SECONDS = 5.0
# Seconds that the end of the thread is waited for.
_STOP_SECONDS = 1.0

# Folders that `/models` names and that hold no models.
_NO_MODELS = ("configs", "custom_nodes")


class Survey:
    """Knows a server, from a thread of its own. Thread-safe."""

    def __init__(
        self,
        comfyui: ComfyUI,
        servers: Servers,
        place: str,
        *,
        worker: str,
        takes_jobs: Callable[[], bool],
        answers: Callable[[], bool],
    ) -> None:
        """Prepare; `start` begins to look.

        Args:
            comfyui: the server.
            servers: where it is told.
            place: of the server.
            worker: this worker's name.
            takes_jobs: whether jobs can be had done there just now.
            answers: whether it makes sense to ask anything of the server.
        """
        self._comfyui = comfyui
        self._servers = servers
        self._place = place
        self._worker = worker
        self._takes_jobs = takes_jobs
        self._answers = answers
        self._on_told: list[Callable[[], None]] = []
        self._looking = threading.Lock()
        self._models: Mapping[str, list[str]] = {}
        self._all_at = self._models_at = float("-inf")
        self._stopping = False
        self._nudged = threading.Event()
        self._begun = threading.Event()
        self._reached = True
        self._began_at = self._heard_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="survey", daemon=True)
        self._looker: threading.Thread | None = None
        self._has_looked = True
        self.capabilities: Capabilities | None = None
        """What the server can do, as far as it is known."""
        self.others: tuple[Server, ...] = ()
        """The other servers of the fleet, as they were told of a moment ago."""
        self.stats: Mapping[str, Any] | None = None
        """What the server says of itself (`/system_stats`), once it has."""

    @property
    def version(self) -> str:
        """Of ComfyUI; empty if the server did not say."""
        return read_stats(self.stats or {}).version

    @property
    def returning_seconds(self) -> float:
        """Seconds until servers that were there before this worker must have come back."""
        return self._still(_RETURNING_SECONDS)

    @property
    def settling_seconds(self) -> float:
        """Seconds until others that have begun at the same time must have been heard of."""
        return self._still(_SETTLING_SECONDS)

    def _still(self, seconds: float) -> float:
        return max(0.0, self._began_at_last() + seconds - time.monotonic())

    def _began_at_last(self) -> float:
        """When it began to hear of others, at its start or when Redis had been away."""
        now = time.monotonic()
        # In such a time others could not tell of themselves, either.
        return now if now - self._heard_at > _UNHEARD_SECONDS else self._began_at

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def wait_begun(self, seconds: float) -> bool:
        """Wait until the others know of the server, if it answers; whether that came in time."""
        return self._begun.wait(seconds)

    def stop(self) -> None:
        """End the thread. What was told holds a little longer: workers come back."""
        self._stopping = True
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def subscribe(self, on_told: Callable[[], None]) -> None:
        """Have it called, from the survey's thread, each time it was told that jobs are taken."""
        self._on_told.append(on_told)

    def renew(self) -> None:
        """Look at everything soon: the server may be another one now."""
        self._all_at = float("-inf")
        self._nudged.set()

    def complain(self) -> None:
        """Look at everything now: the server did not take what it should have.

        Raises:
            JobError: it does not answer.
        """
        with self._looking:
            if time.monotonic() - self._all_at > _FRESH_SECONDS:
                self._look_at_all()

    def object_info(self) -> Mapping[str, Any]:
        """The server's node classes.

        Raises:
            JobError: they are not known yet, and the server does not answer.
        """
        known = self.capabilities
        if known is None:
            with self._looking:
                known = self.capabilities or self._look_at_all()
        return known.nodes

    def look_at_others(self) -> tuple[Server, ...]:
        """The other servers of the fleet as they are now.

        Raises:
            JobError: Redis does not tell.
        """
        return self._note_others(self._servers.live())

    def _note_others(self, live: Iterable[Server]) -> tuple[Server, ...]:
        self._began_at, self._heard_at = self._began_at_last(), time.monotonic()
        self.others = tuple(one for one in live if one.place != self._place)
        return self.others

    def _run(self) -> None:
        while not self._stopping:
            # What was known is told even if there is nothing new to be found out, or not in time.
            has_looked, has_told = self._look(), self._succeeds(self._tell)
            self._reached = has_looked and has_told
            self._begun.set()
            self._nudged.wait(_TELL_SECONDS_AT_FIRST if self.settling_seconds else _TELL_SECONDS)
            self._nudged.clear()

    def _succeeds(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except JobError as error:
            if self._reached:
                logger.warning("what the server can do cannot be told: %s", error)
            return False
        except Exception:
            logger.exception("what the server can do cannot be told")
            return False
        return True

    def _look(self) -> bool:
        """Look if it is time, without waiting long for the answers; whether all is well so far."""
        if self._looker is None or not self._looker.is_alive():
            if not self._is_time():
                return True
            self._looker = threading.Thread(target=self._look_now, name="look", daemon=True)
            self._looker.start()
        self._looker.join(_LOOK_SECONDS)
        return self._has_looked

    def _is_time(self) -> bool:
        # At first it is not known whether it answers.
        if self._begun.is_set() and not self._answers():
            return False
        return self._all_is_due() or self._models_are_due()

    def _all_is_due(self) -> bool:
        return time.monotonic() - self._all_at > _ALL_SECONDS

    def _models_are_due(self) -> bool:
        return time.monotonic() - self._models_at > _MODELS_SECONDS

    def _look_now(self) -> None:
        self._has_looked = self._succeeds(self._look_at_what_is_due)

    def _look_at_what_is_due(self) -> None:
        with self._looking:
            if self._all_is_due() or (self._models_are_due() and self._has_changed()):
                self._look_at_all()

    def _has_changed(self) -> bool:
        """Whether it has other model files than before; its memory is looked at beside."""
        files = self._files()
        self.stats = self._comfyui.system_stats()
        return files != self._models

    def _look_at_all(self) -> Capabilities:
        models = self._files()
        self.stats = self._comfyui.system_stats()
        try:
            found = Capabilities.of(self._comfyui.object_info_json(), models)
        except (ValueError, RecursionError) as error:
            raise ComfyUIProtocolError(
                f"what {self._comfyui.base_url} answers to /object_info is no JSON object"
            ) from error
        self._all_at, self._models = time.monotonic(), models
        if self.capabilities is None or self.capabilities.digest != found.digest:
            logger.info("the server has %d node classes (%s)", len(found.nodes), found.digest)
            self.capabilities = found
        return self.capabilities

    def _files(self) -> dict[str, list[str]]:
        self._models_at = time.monotonic()
        try:
            folders = [one for one in self._comfyui.model_folders() if one not in _NO_MODELS]
        except ComfyUIProtocolError:
            # It is older than these answers.
            return {}
        return {folder: self._files_in(folder) for folder in folders}

    def _files_in(self, folder: str) -> list[str]:
        try:
            return self._comfyui.models(folder)
        except (ComfyUIProtocolError, InvalidInputError):
            # It names the folder, and does not say what is in it; the others count.
            return []

    def _tell(self) -> None:
        known = self.capabilities
        if known is None and self._still(_UNKNOWN_SECONDS) == 0:
            self.look_at_others()
            return
        server = self.server
        are_told, live = self._servers.tell(server)
        self._note_others(live)
        if server.takes_jobs:
            for on_told in self._on_told:
                on_told()
        if known is not None and not are_told:
            # The last one: it is large, and a full Redis does not take it.
            self._servers.tell_capabilities(known.digest, known.packed())

    @property
    def server(self) -> Server:
        """The server, as it is told of."""
        known, stats = self.capabilities, read_stats(self.stats or {})
        return Server(
            place=self._place,
            instance=self._comfyui.base_url,
            worker=self._worker,
            version=stats.version,
            digest=known.digest if known is not None else "",
            takes_jobs=self._takes_jobs(),
            devices=stats.devices,
            ram_total_bytes=stats.ram_total_bytes,
            ram_free_bytes=stats.ram_free_bytes,
        )
