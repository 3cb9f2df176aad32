"""What a node class of `/object_info` has in the UI: its sockets and its widgets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from workers.conversion.export import Slot, type_name

# Types whose inputs the frontend draws as widgets.
_WIDGET_TYPES = frozenset(
    {"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO", "MARKDOWN", "TEXTAREA", "COLOR"}
    | {"FILEUPLOAD", "IMAGECOMPARE", "TREESELECT", "MULTISELECT", "CHART", "GALLERIA"}
    | {"SELECTBUTTON", "COMFY_DYNAMICCOMBO_V3"}
    | {"IMAGEUPLOAD", "AUDIOUPLOAD", "AUDIO_UI", "AUDIO_RECORD", "WEBCAM"}
    | {"LOAD_3D", "LOAD_3D_ANIMATION", "PREVIEW_3D", "PREVIEW_3D_ANIMATION"}
)
_PLAIN_DEFAULTS: Mapping[str, Any] = {"INT": 0, "FLOAT": 0, "BOOLEAN": False}
_SEEDS = ("seed", "noise_seed")
_UPLOADS = ("image_upload", "video_upload", "animated_image_upload")
_WITH_AUDIO_UI = frozenset(
    {"LoadAudio", "SaveAudio", "PreviewAudio", "SaveAudioMP3", "SaveAudioOpus"}
)
_WITH_3D_PREVIEW = {
    "Preview3D": "PREVIEW_3D",
    "SaveGLB": "PREVIEW_3D",
    "Preview3DAnimation": "PREVIEW_3D_ANIMATION",
}
# Buttons that the frontend saves, and sends, as if they were widgets with a value.
_BUTTONS_OF_3D = (
    ("upload 3d model", "upload3dmodel"),
    ("upload extra resources", "uploadExtraResources"),
    ("clear", "clear"),
)
# Titles that the frontend knows of classes for which the server has none.
_TITLES = {
    "ImageBlend": "Image Blend",
    "ImageBlur": "Image Blur",
    "ImageQuantize": "Image Quantize",
    "ImageScaleToTotalPixels": "Scale Image to Total Pixels",
    "ImageSharpen": "Image Sharpen",
}


class Missing:
    """The value of a widget that has none: unlike null it isn't sent."""


MISSING = Missing()


@dataclass(frozen=True)
class Widget:
    """One widget.

    `is_saved`: it has a place in `widgets_values`. `is_sent`: the server gets its value.
    `is_dynamic`: its text may have choices, `{day|night}`, and comments. `branches`: further
    widgets that a node has while this one has a certain value. `folder`: its value is a file
    there, or several if it `is_batch`.
    """

    name: str
    default: Any
    is_saved: bool = True
    is_sent: bool = True
    is_dynamic: bool = False
    branches: Mapping[str, tuple["Widget", ...]] = field(default_factory=dict)
    folder: str | None = None
    is_batch: bool = False


@dataclass(frozen=True)
class NodeClass:
    """What `/object_info` says about a class, as far as the UI draws it."""

    name: str
    title: str
    sockets: tuple[Slot, ...]
    widgets: tuple[Widget, ...]
    widget_types: Mapping[str, str]
    branched: frozenset[str]
    """The names of the widgets that a node may have beside those."""
    outputs: tuple[str, ...]
    forced: tuple[bool, ...]
    """Whether it is forced, of each input that old frontends had a widget for."""
    old_values: int
    """How many values old frontends saved for those."""
    inputs: Mapping[str, tuple[str, Mapping[str, Any]]]
    """Type and options of each input."""


class Classes:
    """The node classes of one server, each read once."""

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        self._object_info = object_info
        self._read: dict[str, NodeClass | None] = {}

    def get(self, class_type: str) -> NodeClass | None:
        """The class, or None when the server doesn't know it."""
        if class_type not in self._read:
            info = self._object_info.get(class_type)
            self._read[class_type] = (
                _node_class(class_type, info) if isinstance(info, Mapping) else None
            )
        return self._read[class_type]

    def names(self) -> list[str]:
        """Every class that the server knows."""
        return [name for name in self._object_info if isinstance(name, str)]


def _node_class(name: str, info: Mapping[str, Any]) -> NodeClass:
    inputs = dict(_inputs(name, info))
    file_input = next((one for one, (kind, o) in inputs.items() if _is_file(kind, o)), None)
    widgets: list[Widget] = []
    sockets: list[Slot] = []
    widget_types: dict[str, str] = {}
    for input_name, (kind, options) in inputs.items():
        if _is_drawn(kind, options):
            drawn = _widgets(input_name, kind, options)
            widgets.extend(_with_folder(drawn, options) if input_name == file_input else drawn)
            widget_types[input_name] = kind
        else:
            sockets.append(Slot(input_name, kind))
    if name == "PreviewAny":
        widgets.append(Widget("preview", "", is_saved=False))
    names = {widget.name for widget in widgets}
    forced = {
        input_name: bool(options.get("forceInput"))
        for input_name, (_, options) in inputs.items()
        if options.get("forceInput") or input_name in names
    }
    outputs, title = info.get("output"), info.get("display_name")
    return NodeClass(
        name=name,
        title=title if isinstance(title, str) and title else _TITLES.get(name, name),
        sockets=tuple(sockets),
        widgets=tuple(widgets),
        widget_types=widget_types,
        branched=frozenset(_branched(widgets)),
        outputs=tuple(type_name(one) for one in outputs) if isinstance(outputs, list) else (),
        forced=tuple(forced.values()),
        old_values=sum(2 if _has_control(one, inputs[one][1]) else 1 for one in forced),
        inputs=inputs,
    )


def _inputs(name: str, info: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Inputs in the order of the UI, with those that the frontend adds to some classes."""
    sections, order = info.get("input"), info.get("input_order")
    required, optional = _section(sections, "required"), _section(sections, "optional")
    specs = {one: input_spec(spec) for one, spec in required.items()}
    upload = next((kind for one, spec in specs.items() if (kind := _upload(one, *spec))), None)
    if name in _WITH_AUDIO_UI:
        specs["audioUI"] = ("AUDIO_UI", {})
    if name in _WITH_3D_PREVIEW:
        specs["image"] = (_WITH_3D_PREVIEW[name], {})
    if upload:
        specs["upload"] = (upload, {})
    specs |= {one: input_spec(spec) for one, spec in optional.items()}
    ordered = (*_ordered(order, "required", required), *_ordered(order, "optional", optional))
    for input_name in dict.fromkeys((*ordered, *specs)):
        yield input_name, specs[input_name]


def _ordered(order: object, name: str, specs: Mapping[str, Any]) -> list[str]:
    """The inputs of a section that the server gives a place."""
    names = order.get(name) if isinstance(order, Mapping) else None
    known = names if isinstance(names, list) else []
    return [one for one in known if isinstance(one, str) and one in specs]


def _section(sections: object, name: str) -> Mapping[str, Any]:
    specs = sections.get(name) if isinstance(sections, Mapping) else None
    return specs if isinstance(specs, Mapping) else {}


def _is_drawn(kind: str, options: Mapping[str, Any]) -> bool:
    """Whether the UI has a widget for the input."""
    return kind in _WIDGET_TYPES and not options.get("forceInput")


def _upload(name: str, kind: str, options: Mapping[str, Any]) -> str | None:
    if _is_file(kind, options):
        return "IMAGEUPLOAD"
    return "AUDIOUPLOAD" if name == "audio" and options.get("audio_upload") is True else None


def _is_file(kind: str, options: Mapping[str, Any]) -> bool:
    return kind == "COMBO" and any(options.get(flag) is True for flag in _UPLOADS)


def _with_folder(drawn: Iterator[Widget], options: Mapping[str, Any]) -> Iterator[Widget]:
    folder, is_batch = options.get("image_folder"), bool(options.get("allow_batch"))
    named = folder if isinstance(folder, str) else "input"
    yield replace(next(drawn), folder=named, is_batch=is_batch)
    yield from drawn


def _has_control(name: str, options: Mapping[str, Any]) -> bool:
    return bool(options.get("control_after_generate")) or name in _SEEDS


def input_spec(spec: object) -> tuple[str, Mapping[str, Any]]:
    """Type and options of an input; choices are among the options, in the old schema as well."""
    match spec:
        case [list(choices), Mapping() as options, *_]:
            return "COMBO", {"options": choices, **options}
        case [list(choices), *_]:
            return "COMBO", {"options": choices}
        case [kind, Mapping() as options, *_]:
            drawn = options.get("widgetType")
            return drawn if isinstance(drawn, str) else type_name(kind), options
        case [kind, *_]:
            return type_name(kind), {}
    return "*", {}


def _widgets(name: str, kind: str, options: Mapping[str, Any]) -> Iterator[Widget]:
    """The widget of an input, with the further ones that the frontend adds to it."""
    match kind:
        case "INT":
            yield Widget(name, _plain_default(kind, options))
            controlled = options.get("control_after_generate")
            if controlled or (controlled is None and name in _SEEDS):
                yield _unsent("control_after_generate")
        case "FLOAT" | "BOOLEAN":
            yield Widget(name, _plain_default(kind, options))
        case "COMBO":
            yield from _combo(name, options)
        case "COMFY_DYNAMICCOMBO_V3":
            yield _dynamic_combo(name, options)
        case "IMAGEUPLOAD" | "AUDIOUPLOAD":
            yield _unsent(name)
        case "AUDIO_UI":
            yield Widget(name, "", is_saved=False)
        case "AUDIO_RECORD":
            yield Widget(name, "")
            yield _unsent(name)
        case _:
            buttons = _BUTTONS_OF_3D if kind in ("LOAD_3D", "LOAD_3D_ANIMATION") else ()
            for button, value in buttons:
                yield Widget(button, value)
            text = options.get("default")
            is_dynamic = options.get("dynamicPrompts") is True
            yield Widget(name, "" if text is None else text, is_dynamic=is_dynamic)


def _plain_default(kind: str, options: Mapping[str, Any]) -> Any:
    default = options.get("default")
    return _PLAIN_DEFAULTS[kind] if default is None else default


def _combo(name: str, options: Mapping[str, Any]) -> Iterator[Widget]:
    formats = options.get("formats")
    branches = {
        value: tuple(_widgets_of_format(further))
        for value, further in (formats.items() if isinstance(formats, Mapping) else ())
    }
    yield Widget(name, _choice(options), branches=branches)
    remote = options.get("remote")
    if isinstance(remote, Mapping):
        yield _unsent("Auto-refresh after generation")
        if remote.get("refresh_button"):
            yield Widget("refresh", "refresh")
    if options.get("control_after_generate"):
        yield _unsent("control_after_generate")
        yield _unsent("control_filter_list")


def _widgets_of_format(further: object) -> Iterator[Widget]:
    for item in further if isinstance(further, list) else ():
        match item:
            case [str(name), *spec]:
                yield from _widgets(name, *input_spec(spec))


def _dynamic_combo(name: str, options: Mapping[str, Any]) -> Widget:
    """A combo each of whose choices has inputs of its own, named after it: `size.width`."""
    choices = options.get("options")
    branches: dict[str, tuple[Widget, ...]] = {}
    for choice in choices if isinstance(choices, list) else ():
        match choice:
            case {"key": str(key), "inputs": Mapping() as sections}:
                specs = {**_section(sections, "required"), **_section(sections, "optional")}
                drawn = ((f"{name}.{inner}", *input_spec(spec)) for inner, spec in specs.items())
                branches[key] = tuple(
                    widget
                    for inner, kind, inner_options in drawn
                    if _is_drawn(kind, inner_options)
                    for widget in _widgets(inner, kind, inner_options)
                )
    return Widget(name, next(iter(branches), MISSING), branches=branches)


def _branched(widgets: list[Widget]) -> Iterator[str]:
    waiting = [*widgets]
    while waiting:
        further = [one for branch in waiting.pop().branches.values() for one in branch]
        yield from (widget.name for widget in further)
        waiting.extend(further)


def _choice(options: Mapping[str, Any]) -> Any:
    if options.get("multi_select"):
        return []
    if options.get("default"):
        return options["default"]
    choices = options.get("options")
    if isinstance(choices, list) and choices:
        return choices[0]
    return "Loading..." if options.get("remote") else MISSING


def _unsent(name: str) -> Widget:
    return Widget(name, MISSING, is_sent=False)
