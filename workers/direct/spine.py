"""The spine without a queue: submit, wait, download."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.errors import ComfyUIUnavailableError, InvalidWorkflowError, JobTimeoutError
from tasks.result import Progress
from tasks.workflow import Workflow, check_workflow
from tasks.workflow_form import is_export
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.history import failure_in, output_files, overwritten, shown_values
from workers.comfyui.model import Execution, PromptState, SavedFile
from workers.comfyui.notifications import Subscription
from workers.comfyui.progress import PromptProgress
from workers.conversion.convert import convert
from workers.direct.saving import pieces, save
from workers.execution.control import Control
from workers.execution.waiting import Patience, await_entry

Report = Callable[[Progress], object]

# The share of the progress that comes before the downloads.
_EXECUTED = 0.95

# Seconds that the websocket has to connect before it is done without.
_CONNECT_SECONDS = 5.0


def execute(
    comfyui: ComfyUI,
    workflow: Workflow,
    output_dir: Path,
    *,
    timeout: float | None = None,
    on_progress: Report = lambda _: None,
    include_temp: bool = False,
) -> Execution:
    """Run a workflow and save what it makes; arguments and errors as of `ComfyUI.execute`."""
    # Now, as nobody wants to hear of it after the render.
    output_dir.mkdir(parents=True, exist_ok=True)
    export = workflow if is_export(workflow) else None
    sent = workflow if export is None else convert(export, comfyui.object_info())
    check_workflow(sent)
    prompt_id = str(uuid.uuid4())
    with (
        _listening(comfyui, prompt_id) as (notifications, subscription),
        _cancelled_if_given_up(comfyui, prompt_id),
    ):
        _submit(comfyui, sent, prompt_id, notifications.client_id, export)

        def tick(running: bool) -> None:
            on_progress(_progress(comfyui, sent, subscription.progress, running=running))

        entry = _await(
            prompt_id, comfyui, notifications, subscription, timeout=timeout, on_tick=tick
        )
    failure = failure_in(entry, sent) or overwritten(entry, include_temp=include_temp)
    if failure is not None:
        raise failure
    files = _download(comfyui, entry, output_dir, on_progress, include_temp=include_temp)
    return Execution(prompt_id, tuple(files), shown_values(entry))


@contextmanager
def _listening(comfyui: ComfyUI, prompt_id: str) -> Iterator[tuple[Notifications, Subscription]]:
    """Hear of the prompt from its first message on, if the server's websocket can be had."""
    # A server that is not there is one error, and not that of its websocket as well.
    comfyui.remaining()
    notifications = Notifications(comfyui.base_url, str(uuid.uuid4()), headers=comfyui.headers)
    with notifications.subscribed(prompt_id) as subscription:
        notifications.start()
        try:
            # Both a connection and the lack of one are a hint.
            subscription.wait(_CONNECT_SECONDS)
            yield notifications, subscription
        finally:
            notifications.stop()


@contextmanager
def _cancelled_if_given_up(comfyui: ComfyUI, prompt_id: str) -> Iterator[None]:
    """Whatever ends the waiting, Ctrl-C as well, takes this prompt back, and no other one."""
    try:
        yield
    except InvalidWorkflowError:
        # The server has not taken it.
        raise
    except BaseException:
        comfyui.try_cancel(prompt_id)
        raise


def _submit(
    comfyui: ComfyUI,
    workflow: Workflow,
    prompt_id: str,
    client_id: str,
    export: Mapping[str, Any] | None,
) -> None:
    try:
        comfyui.submit(workflow, prompt_id, client_id, export=export)
    except ComfyUIUnavailableError:
        # The answer was lost, the prompt perhaps not.
        if comfyui.state_of(prompt_id) is PromptState.UNKNOWN:
            raise


def _await(
    prompt_id: str,
    comfyui: ComfyUI,
    notifications: Notifications,
    subscription: Subscription,
    *,
    timeout: float | None,
    on_tick: Callable[[bool], None],
) -> Mapping[str, Any]:
    """The history entry of the prompt when it has ended, however it did."""
    try:
        return await_entry(
            prompt_id,
            comfyui=comfyui,
            notifications=notifications,
            subscription=subscription,
            patience=Patience(timeout),
            control=Control(),
            on_tick=on_tick,
            on_trouble=lambda: None,
        )
    except JobTimeoutError:
        raise JobTimeoutError(
            f"prompt {prompt_id} was stopped: it has executed for {timeout:g} s, its timeout"
        ) from None


def _progress(
    comfyui: ComfyUI, workflow: Workflow, progress: PromptProgress, *, running: bool
) -> Progress:
    return Progress(
        stage="executing" if running or progress.started else "queued",
        value=round(_EXECUTED * progress.share(workflow), 3),
        node_id=progress.node_id,
        class_type=workflow.get(progress.node_id or "", {}).get("class_type"),
        step=progress.step,
        steps=progress.steps,
        instance=comfyui.base_url,
    )


def _download(
    comfyui: ComfyUI,
    entry: Mapping[str, Any],
    folder: Path,
    on_progress: Report,
    *,
    include_temp: bool,
) -> Iterator[SavedFile]:
    files = output_files(entry, include_temp=include_temp)
    for number, output in enumerate(files):
        value = _EXECUTED + (1 - _EXECUTED) * number / len(files)
        on_progress(Progress(stage="downloading", value=value, instance=comfyui.base_url))
        with comfyui.view(output.file) as download:
            path = save(pieces(download.read), folder, output.file.filename)
        yield SavedFile(output.node_id, output.kind, path)
