"""Model files: which of them a workflow uses, and which are nearly the one that is missing."""

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PureWindowsPath

from tasks.workflow import Workflow

# What ComfyUI loads as a model, by the end of its name.
_ENDINGS = (
    *(".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx"),
)
# Folders whose files take long to load; the others' are loaded beside them.
_HEAVY = ("checkpoints", "diffusion_models", "unet", "text_encoders", "clip", "diffusers")

# Marks of one and the same model in another precision or form.
_FORMS = re.compile(
    r"(?:^|[ ._-])(?:fp\d+|bf\d+|f\d+|int\d+|e\dm\d(?:fn)?|q\d+(?:[ _-]?[0-9ksml])*|nf4|scaled|"
    r"mixed|pruned|emaonly|ema|only|quant(?:ized)?|gguf)(?=$|[ ._-])",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"[ ._-]+")
_ALIKE = 0.8
_MOST_NEAR = 3
# Longer than names of files are.
_MOST_CHARACTERS = 255
# Files that are compared with the one that is missing.
_MOST_COMPARED = 2000


def is_model(value: object) -> bool:
    """Whether a value of an input names a model file."""
    return isinstance(value, str) and value.lower().endswith(_ENDINGS)


def models_key(workflow: Workflow, models: Mapping[str, Iterable[str]]) -> str:
    """Names the models of a workflow that take long to load; empty if it has none.

    Args:
        workflow: checked, in API format.
        models: the files of each folder of a server that has them.
    """
    heavy = {file for folder in _HEAVY for file in models.get(folder, ())}
    used = sorted({value for value in _values(workflow) if value in heavy})
    return hashlib.sha256("\n".join(used).encode()).hexdigest()[:16] if used else ""


def near_models(name: str, models: Mapping[str, Iterable[str]]) -> list[str]:
    """The files that are most likely meant by a name that there is not, each with its folder.

    The same name elsewhere comes first, then the same model in another form.
    """
    rated = sorted(
        ((rate, f"{file} in {folder}") for rate, folder, file in _rated(name, models)),
        key=lambda one: (-one[0], one[1]),
    )
    return [told for _, told in rated[:_MOST_NEAR]]


def _values(workflow: Workflow) -> Iterator[str]:
    for node in workflow.values():
        yield from (value for value in node["inputs"].values() if is_model(value))


def _rated(name: str, models: Mapping[str, Iterable[str]]) -> Iterator[tuple[float, str, str]]:
    file, stem = _file(name[-_MOST_CHARACTERS:]), _stem(name[-_MOST_CHARACTERS:])
    matcher = difflib.SequenceMatcher(None, b=stem)
    compared = 0
    for folder, files in models.items():
        for other in files:
            compared += 1
            if compared > _MOST_COMPARED:
                return
            if _file(other) == file:
                yield 3.0, folder, other
            elif (its := _stem(other)) == stem:
                yield 2.0, folder, other
            elif alike := _alike(matcher, its):
                yield alike, folder, other


def _alike(matcher: difflib.SequenceMatcher[str], stem: str) -> float:
    """How alike the names are, where that is much: 0 to 1."""
    matcher.set_seq1(stem)
    # Each costs much more than the one before.
    for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio):
        if (alike := ratio()) < _ALIKE:
            return 0.0
    return alike


def _file(name: str) -> str:
    # Servers on Windows have backslashes in their names.
    return PureWindowsPath(name).name.lower()


def _stem(name: str) -> str:
    stem = _file(name).rsplit(".", 1)[0]
    return _SEPARATORS.sub(" ", _FORMS.sub(" ", stem)).strip()
