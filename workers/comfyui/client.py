"""ComfyUI's HTTP API, as far as jobs and people need it.

Paths, bodies and status codes are recorded from two versions in tests/fixtures/wire.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar
from urllib.parse import quote

import requests

from tasks.errors import (
    ComfyUIAccessDeniedError,
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    InvalidInputError,
    InvalidWorkflowError,
    JobError,
    OutputMissingError,
)
from tasks.request import label
from tasks.result import Progress
from tasks.workflow import Workflow
from workers.comfyui.connection import PATIENCE, Adapter, at_most
from workers.comfyui.download import Download
from workers.comfyui.model import (
    Execution,
    FileRef,
    PromptQueue,
    PromptState,
    QueuedPrompt,
)
from workers.comfyui.queue import read_queue
from workers.comfyui.rejection import describe_rejection
from workers.comfyui.seam import translated

T = TypeVar("T")
A = TypeVar("A", "_Answer", requests.Response)

logger = logging.getLogger(__name__)

_QUICK = ("/history/", "/queue", "/interrupt")

# Far more than any answer that is no file.
MOST_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Answer:
    """An answer that has been read."""

    status_code: int
    headers: Mapping[str, str]
    url: str
    content: bytes


class ComfyUI:
    """A client of one ComfyUI server. Thread-safe; keeps its connections alive.

    Every method raises ComfyUIUnavailableError (no answer, 5xx), ComfyUIAccessDeniedError
    (401, 403) or ComfyUIProtocolError (an answer that is not ComfyUI's); beyond these only
    what its own docstring names.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        connections: int = 8,
    ) -> None:
        """Prepare a client; nothing is opened before the first request.

        Args:
            base_url: where the server is, with or without a path prefix such as `/api`.
            headers: sent with every request, for a proxy that wants Authorization or a Cookie.
            connect_timeout: seconds to wait for a connection.
            read_timeout: seconds to wait for the next bytes of an answer; one that is no file has
                twice that time for all of its bytes.
            connections: how many are kept alive; one a thread that uses the client.
        """
        self.base_url = base_url.rstrip("/")
        self.headers = dict(headers or {})
        self._timeout = (connect_timeout, read_timeout)
        # What only asks and tells is answered at once or not at all.
        self._short = (connect_timeout, min(read_timeout, 10.0))
        self._session = requests.Session()
        self._session.headers.update(self.headers)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, Adapter(pool_connections=1, pool_maxsize=connections))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    # A workflow from its file to its pictures

    def execute(
        self,
        workflow: Workflow,
        output_dir: str | Path,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Progress], object] = lambda _: None,
        include_temp: bool = False,
    ) -> Execution:
        """Submit a workflow, wait for its end and download what it has made.

        Whatever ends the waiting, an exception of `on_progress` or Ctrl-C as well, takes the
        prompt out of the queue or stops it, and no other one.

        Args:
            workflow: API format, or an export of the UI, which this server's nodes convert.
            output_dir: folder for the files; made if need be. No file in it is overwritten.
            timeout: seconds that the prompt may execute; waiting in the queue does not count.
            on_progress: called at least every half second with `stage` (queued, executing,
                downloading), `value` (0 to 1), node and step.
            include_temp: download previews too.

        Raises:
            InvalidWorkflowError: it is no workflow, or the server refuses it.
            NodeFailedError: a node raised.
            OutOfMemoryError: a node ran out of memory.
            PromptInterruptedError: somebody has interrupted the prompt.
            PromptLostError: somebody has deleted it, or the server was restarted.
            JobTimeoutError: it took longer than `timeout`.
            OutputMissingError: a file is gone from the server.
            HistoryUnreadableError: nobody knows how it ended.
            OSError: a file cannot be written.
        """
        # It loads what only those need who wait.
        from workers.direct import execute  # noqa: PLC0415

        return execute(
            self,
            workflow,
            Path(output_dir),
            timeout=timeout,
            on_progress=on_progress,
            include_temp=include_temp,
        )

    # Prompts

    def submit(
        self,
        workflow: Workflow,
        prompt_id: str,
        client_id: str,
        *,
        front: bool = False,
        export: Mapping[str, Any] | None = None,
    ) -> None:
        """Queue a workflow under an id of our choice.

        A prompt of which ComfyUI would run only a part, because some outputs are invalid, is
        taken back and counts as refused.

        Args:
            workflow: API format.
            prompt_id: the server does not check that it is new: posted twice it runs twice.
            client_id: the websocket client that hears of it.
            front: before all that wait.
            export: what the UI has saved of it, for nodes that embed that in what they make.

        Raises:
            InvalidWorkflowError: the server refuses it; the message names node, input, reason.
        """
        body: dict[str, Any] = {
            "prompt": workflow,
            "prompt_id": prompt_id,
            "client_id": client_id,
        }
        if front:
            body["front"] = True
        if export is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": export}}
        response = self._ask("POST", "/prompt", json=body)
        if _handler_raised(response):
            # Its own handler raised on this body, and would again: it is no outage.
            raise InvalidWorkflowError(
                f"ComfyUI at {self.base_url} failed while it read the workflow (500)"
            )
        if response.status_code in (400, 413):
            raise InvalidWorkflowError(describe_rejection(workflow, _json_or_text(response)))
        answer = self._json(self._checked(response), dict)
        if (given := answer.get("prompt_id", prompt_id)) != prompt_id:
            self.try_cancel(str(given))
            raise ComfyUIProtocolError(
                f"ComfyUI at {self.base_url} gives prompts ids of its own: it is older than 0.3.45"
            )
        if answer.get("node_errors"):
            self.try_cancel(prompt_id)
            raise InvalidWorkflowError(describe_rejection(workflow, answer))

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The entry of a finished prompt; None while it is unknown, waiting or running."""
        answer = self._get_json(f"/history{_segment(prompt_id)}", dict)
        entry = answer.get(prompt_id)
        if entry is not None and not isinstance(entry, dict):
            raise self._not_comfyui("a history entry that is no object")
        return entry

    def histories(
        self, max_items: int | None = None, offset: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Finished prompts by id, oldest first.

        Args:
            max_items: how many at most; the newest ones unless an offset is given.
            offset: how many of the oldest to leave out.
        """
        given = {"max_items": max_items, "offset": offset}
        params = {name: value for name, value in given.items() if value is not None}
        entries = self._get_json("/history", dict, params=params)
        if not all(isinstance(entry, dict) for entry in entries.values()):
            raise self._not_comfyui("a history entry that is no object")
        return entries

    def delete_history(self, prompt_ids: Iterable[str]) -> None:
        """Forget these finished prompts; their files stay."""
        self._post("/history", {"delete": list(prompt_ids)})

    def clear_history(self) -> None:
        """Forget all finished prompts; their files stay."""
        self._post("/history", {"clear": True})

    def queue(self) -> PromptQueue:
        """What runs and what waits."""
        running, pending = self.queued_prompts()
        return PromptQueue(
            tuple(prompt.prompt_id for prompt in running),
            tuple(prompt.prompt_id for prompt in pending),
        )

    def queued_prompts(self) -> tuple[list[QueuedPrompt], list[QueuedPrompt]]:
        """The prompts that run and those that wait, with their workflows; the next one first."""
        answer = self._get_json("/queue", dict)
        try:
            return read_queue(answer)
        except ValueError as error:
            raise self._not_comfyui(str(error)) from None

    def remaining(self) -> int:
        """How many prompts run or wait."""
        match self._get_json("/prompt", dict):
            case {"exec_info": {"queue_remaining": int(remaining)}}:
                return remaining
        raise self._not_comfyui("no number of prompts")

    def delete_from_queue(self, prompt_ids: Iterable[str]) -> None:
        """Remove waiting prompts; running ones are not touched."""
        self._post("/queue", {"delete": list(prompt_ids)})

    def clear_queue(self) -> None:
        """Remove all waiting prompts, whoever queued them."""
        self._post("/queue", {"clear": True})

    def interrupt(self, prompt_id: str) -> None:
        """Stop this prompt at its next step if it is the one that runs."""
        self._post("/interrupt", {"prompt_id": prompt_id})

    def interrupt_all(self) -> None:
        """Stop whatever runs, whoever queued it."""
        self._post("/interrupt", {})

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or stop it if it already runs."""
        self.delete_from_queue([prompt_id])
        # Only if it runs: servers older than the targeted interrupt stop whatever does.
        if prompt_id in self.queue().running:
            self.interrupt(prompt_id)

    def try_cancel(self, prompt_id: str) -> bool:
        """Cancel a prompt where an error must not hide another one; whether the server heard."""
        try:
            self.cancel(prompt_id)
        except JobError as error:
            logger.warning("prompt %s could not be cancelled: %s", prompt_id, error)
            return False
        return True

    def state_of(self, prompt_id: str) -> PromptState:
        """What the server knows of a prompt."""
        if self.history(prompt_id) is not None:
            return PromptState.ENDED
        if prompt_id in self.queue():
            return PromptState.QUEUED
        # It may have ended between the two questions.
        ended = self.history(prompt_id) is not None
        return PromptState.ENDED if ended else PromptState.UNKNOWN

    # Files

    @contextmanager
    def view(self, file: FileRef, check: Callable[[], object] = lambda: None) -> Iterator[Download]:
        """Open a file on the server for reading; its bytes are not held in memory.

        Args:
            file: which.
            check: called before each read; what it raises ends the reading.

        Raises:
            OutputMissingError: the server does not have the file, or does not show it.
        """
        params = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
        response = self._request("GET", "/view", params=params)
        try:
            if response.status_code in (400, 404):
                raise OutputMissingError(
                    f"ComfyUI at {self.base_url} no longer has {file.type} file "
                    f"{file.filename!r} ({response.status_code})"
                )
            if self._checked(response).status_code != 200:
                raise self._not_comfyui(f"{response.status_code} where a file should be")
            yield Download(response, self.base_url, check)
        finally:
            response.close()

    def has(self, file: FileRef) -> bool:
        """Whether a file is on the server."""
        params = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
        response = self._ask("HEAD", "/view", params=params)
        if response.status_code in (400, 404):
            return False
        return self._checked(response).status_code == 200

    def upload_image(
        self,
        filename: str,
        content: bytes | IO[bytes],
        *,
        subfolder: str = "",
        type: str = "input",  # noqa: A002  # ComfyUI's own name of it
        overwrite: bool = False,
    ) -> FileRef:
        """Place a file, of whatever kind, where loader nodes find it.

        Returns:
            Where it is: without `overwrite` a name that is taken by other content gets a number.

        Raises:
            InvalidInputError: the server refuses name, folder or size.
        """
        form = {"subfolder": subfolder, "type": type, "overwrite": str(overwrite).lower()}
        return self._upload("/upload/image", filename, content, form)

    def upload_mask(
        self,
        filename: str,
        content: bytes | IO[bytes],
        original: FileRef,
        *,
        subfolder: str = "",
        type: str = "input",  # noqa: A002  # ComfyUI's own name of it
        overwrite: bool = False,
    ) -> FileRef:
        """Place a copy of an image on the server with the alpha channel of this one as mask.

        Raises:
            InvalidInputError: the server refuses it, or has no such original.
        """
        reference = {
            "filename": original.filename,
            "subfolder": original.subfolder,
            "type": original.type,
        }
        form = {
            "subfolder": subfolder,
            "type": type,
            "overwrite": str(overwrite).lower(),
            "original_ref": json.dumps(reference),
        }
        return self._upload("/upload/mask", filename, content, form)

    # The server

    def object_info(self, class_type: str | None = None) -> dict[str, Any]:
        """The schema of each node class, or of one: empty if the server does not know it."""
        return self._get_json(f"/object_info{_segment(class_type)}", dict)

    def object_info_json(self) -> str:
        """The schema of each node class, as the JSON that it comes in."""
        return self._checked(self._ask("GET", "/object_info")).content.decode(errors="replace")

    def model_folders(self) -> list[str]:
        """The kinds of models that the server knows."""
        return self._names(self._get_json("/models", list))

    def models(self, folder: str) -> list[str]:
        """The model files in a folder.

        Raises:
            InvalidInputError: the server has no such folder.
        """
        response = self._ask("GET", f"/models{_segment(folder)}")
        if response.status_code == 404:
            raise InvalidInputError(f"ComfyUI at {self.base_url} has no model folder {folder!r}")
        return self._names(self._json(self._checked(response), list))

    def embeddings(self) -> list[str]:
        """The names of the textual inversion embeddings."""
        return self._names(self._get_json("/embeddings", list))

    def system_stats(self) -> dict[str, Any]:
        """Version, memory in bytes and devices of the server."""
        return self._get_json("/system_stats", dict)

    def features(self) -> dict[str, Any]:
        """What the server supports beyond the common API, such as `max_upload_size` in bytes."""
        return self._get_json("/features", dict)

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """Let go of models and of cached results, when the prompt that runs has ended."""
        self._post("/free", {"unload_models": unload_models, "free_memory": free_memory})

    def try_free(self) -> None:
        """Let go of models and cached results where another error is being dealt with."""
        try:
            self.free()
        except JobError as error:
            logger.warning("memory could not be freed: %s", error)

    # One request

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        with translated(self.base_url):
            # A redirect would carry our headers to somebody else.
            return self._session.request(
                method,
                self.base_url + path,
                timeout=self._timeouts(path),
                allow_redirects=False,
                stream=True,
                **options,
            )

    def _ask(self, method: str, path: str, **options: Any) -> _Answer:
        with self._request(method, path, **options) as response:
            content = self._content(response, PATIENCE * self._timeouts(path)[1])
            return _Answer(response.status_code, response.headers, response.url, content)

    def _content(self, response: requests.Response, seconds: float) -> bytes:
        raw = response.raw
        try:
            with translated(self.base_url), at_most(seconds, raw.shutdown):
                content = bytes(raw.read(MOST_ANSWER_BYTES + 1, decode_content=True))
        except TimeoutError:
            raise ComfyUIUnavailableError(
                f"ComfyUI at {self.base_url} did not end its answer in time"
            ) from None
        if len(content) > MOST_ANSWER_BYTES:
            raise self._not_comfyui(f"more than {MOST_ANSWER_BYTES:,} bytes")
        return content

    def _timeouts(self, path: str) -> tuple[float, float]:
        return self._short if path.startswith(_QUICK) else self._timeout

    def _checked(self, response: A) -> A:
        status = response.status_code
        if 200 <= status < 300:
            return response
        url = response.url.partition("?")[0]
        if status in (401, 403):
            raise ComfyUIAccessDeniedError(
                f"ComfyUI at {self.base_url} denies access to {url} ({status}); "
                "COMFYUI_HEADERS can carry credentials"
            )
        if status == 429 or status >= 500:
            raise ComfyUIUnavailableError(f"ComfyUI at {self.base_url} answered {status} to {url}")
        if location := response.headers.get("Location"):
            raise self._not_comfyui(f"{status} to {url}, a redirect to {label(location)}")
        raise self._not_comfyui(f"{status} to {url}")

    def _get_json(self, path: str, kind: type[T], **options: Any) -> T:
        return self._json(self._checked(self._ask("GET", path, **options)), kind)

    def _json(self, response: _Answer, kind: type[T]) -> T:
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            # Also numbers of thousands of digits, levels by the thousand.
            raise self._not_comfyui(
                "something else than JSON, or JSON that cannot be read"
            ) from None
        if not isinstance(answer, kind):
            raise self._not_comfyui(f"JSON that is no {kind.__name__}")
        return answer

    def _names(self, found: list[Any]) -> list[str]:
        if not all(isinstance(name, str) for name in found):
            raise self._not_comfyui("names that are no strings")
        return found

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        self._checked(self._ask("POST", path, json=body))

    def _upload(
        self, path: str, filename: str, content: bytes | IO[bytes], form: Mapping[str, str]
    ) -> FileRef:
        response = self._ask("POST", path, files={"image": (filename, content)}, data=form)
        if response.status_code in (400, 413):
            raise InvalidInputError(
                f"ComfyUI at {self.base_url} refuses the file {filename!r} ({response.status_code})"
            )
        answer = self._json(self._checked(response), dict)
        match answer:
            case {"name": str(name), "subfolder": str(subfolder), "type": str(kind)}:
                return FileRef(name, subfolder, kind)
        raise self._not_comfyui("no name for an uploaded file")

    def _not_comfyui(self, what: str) -> JobError:
        return ComfyUIProtocolError(f"at {self.base_url} something answers {what}: no ComfyUI")


def _segment(name: str | None) -> str:
    return "/" + quote(name, safe="") if name else ""


def _handler_raised(response: _Answer) -> bool:
    # aiohttp's answer, plain text, when a handler raises; proxies answer 5xx in their own way.
    media_type = response.headers.get("Content-Type", "").partition(";")[0]
    return response.status_code == 500 and media_type == "text/plain"


def _json_or_text(response: _Answer) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return {"error": response.content.decode(errors="replace")}
