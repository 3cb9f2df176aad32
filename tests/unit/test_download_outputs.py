"""Saving outputs: under names that lead nowhere else, and never over what is there."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.download import Downloads
from cli.errors import CommandError
from tasks.result import Output


class Store:
    """A bucket of a few objects."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = objects
        self.asked: list[str] = []

    @contextmanager
    def opened(self, key: str) -> Iterator[Any]:
        self.asked.append(key)
        content = self._objects.get(key)
        yield None if content is None else SimpleNamespace(pieces=iter([content]))

    def close(self) -> None:
        pass


def output(key: str, content: bytes) -> Output:
    return Output(
        node_id="9",
        kind="images",
        filename="../../a.png",
        bucket="b",
        key=key,
        uri=f"s3://b/{key}",
        content_type="image/png",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def save(folder: Path, objects: Mapping[str, bytes], *outputs: Output) -> tuple[list[str], Store]:
    downloads, store = Downloads(), Store(objects)
    downloads._stores["b"] = store  # type: ignore[assignment]
    result: Any = SimpleNamespace(outputs=outputs)
    return [path.name for path in downloads.save(result, folder)], store


def test_two_nodes_with_a_file_of_the_same_name(tmp_path: Path) -> None:
    objects = {"j/1/9/0-a.png": b"one", "j/1/10/0-a.png": b"two"}
    outputs = [output(key, content) for key, content in objects.items()]
    names, _ = save(tmp_path / "new", objects, *outputs)
    assert names == ["a.png", "a-2.png"]
    assert {path.read_bytes() for path in (tmp_path / "new").iterdir()} == {b"one", b"two"}


def test_what_is_there_already_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    (tmp_path / "a-2.png").write_bytes(b"one")
    names, store = save(tmp_path, {}, output("j/1/9/0-a.png", b"one"))
    assert (names, store.asked) == (["a-2.png"], [])
    assert (tmp_path / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["..", ".", "", "a-b.tar.gz", ".hidden"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "here"
    key = f"j/1/9/0-{name}"
    save(folder, {key: b"x"}, output(key, b"x"))
    (saved,) = folder.iterdir()
    assert saved.read_bytes() == b"x"
    assert list(tmp_path.rglob("*")) == [tmp_path / "in", folder, saved]


def test_an_object_that_is_gone_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"s3://b/j/1/9/0-a\.png is gone"):
        save(tmp_path, {}, output("j/1/9/0-a.png", b"x"))
    assert list(tmp_path.iterdir()) == []
