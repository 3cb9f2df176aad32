"""Files on this machine: whole, in their folder, over no other one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.direct.saving import local_name, save, write


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("a.png", "a.png"),
        ("with space.png", "with space.png"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        ("a/", "file"),
        (".bashrc", "bashrc"),
        ("a\x1b[31m\n.png", "a_[31m_.png"),
        ("x" * 300 + ".safetensors", "x" * 168 + ".safetensors"),
    ],
)
def test_a_name_from_a_server_is_one_of_ours(filename: str, name: str) -> None:
    assert local_name(filename) == name


@given(st.text())
def test_no_name_leads_anywhere_else(filename: str) -> None:
    name = local_name(filename.encode("utf-8", "replace").decode())
    assert Path("folder", name).parent == Path("folder")
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert name.isprintable()
    assert len(name.encode()) <= 255


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    saved = [save([b"%d" % n], tmp_path, "a/b.tar.gz") for n in range(3)]
    assert [path.name for path in saved] == ["b.tar.gz", "b.tar-2.gz", "b.tar-3.gz"]
    assert [path.read_bytes() for path in saved] == [b"0", b"1", b"2"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    aim = tmp_path / "aim"
    (tmp_path / "a").symlink_to(aim)
    assert save([b"x"], tmp_path, "a").name == "a-2"
    assert not aim.exists()


def failing() -> Iterator[bytes]:
    yield b"half of it"
    raise ConnectionError("cut")


def test_what_does_not_come_whole_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        save(failing(), tmp_path, "a.png")
    with pytest.raises(ConnectionError):
        write(failing(), tmp_path / "a.png", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_by_a_whole_one_and_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write([b"first"], path, overwrite=False)
    with pytest.raises(FileExistsError):
        write([b"second"], path, overwrite=False)
    with pytest.raises(ConnectionError):
        write(failing(), path, overwrite=True)
    assert path.read_bytes() == b"first"
    write([b"third"], path, overwrite=True)
    assert path.read_bytes() == b"third"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    # Such as a device.
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        with pytest.raises(FileExistsError):
            write([b"x"], path, overwrite=True)
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [folder, pipe]
