"""What loaders can load: told by their class, and by a file's content, not by its name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.errors import InvalidInputError
from tasks.request import shown
from tasks.workflow import Workflow, node_name
from workers.storage.content_type import UNKNOWN


@dataclass(frozen=True)
class _Kind:
    """What a loader takes.

    Attributes:
        loader: how the names of its classes look.
        what: it, in a sentence.
        fits: the media types.
    """

    loader: re.Pattern[str]
    what: str
    fits: re.Pattern[str]


# Packs name their loaders after ComfyUI's own: VHS_LoadVideo, LoadImageWithSwitch.
_KINDS = (
    _Kind(re.compile("LoadImage"), "an image", re.compile(r"image/(?!svg)")),
    # A container tells neither whether it has pictures nor whether it has sound.
    _Kind(re.compile("LoadAudio"), "audio or video", re.compile(r"(audio|video)/|application/ogg")),
    _Kind(
        re.compile("LoadVideo"),
        "a video",
        re.compile(r"video/|(application|audio)/ogg|image/(gif|webp|png)"),
    ),
)


def check_kind(name: str, media_type: str, workflow: Workflow, users: Iterable[str]) -> None:
    """Refuse a file that a node which uses it cannot load, as far as both are known.

    Raises:
        InvalidInputError: names the node, what was found and what it loads.
    """
    if media_type == UNKNOWN:
        return
    for node_id in users:
        kind = _kind_of(workflow[node_id]["class_type"])
        if kind is not None and not kind.fits.match(media_type):
            raise InvalidInputError(
                f"input {shown(name)}: {node_name(workflow, node_id)} loads {kind.what}, "
                f"found {media_type}"
            )


def _kind_of(class_type: str) -> _Kind | None:
    return next((kind for kind in _KINDS if kind.loader.search(class_type)), None)
