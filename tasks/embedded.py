"""The texts that ComfyUI embeds in its images: chunks of a PNG, EXIF of a WebP.

Read by hand, as a producer has no imaging library. Whatever a file claims, no more of it is read
or decompressed than is allowed.
"""

import struct
import zlib
from collections.abc import Collection, Iterator
from io import SEEK_CUR, SEEK_END
from typing import BinaryIO

from tasks.errors import InvalidWorkflowError

PNG = b"\x89PNG\r\n\x1a\n"

# Far more than an image has, little enough to be looked at in a second.
_MOST_CHUNKS = 1_000_000
_MOST_KEYWORD = 80
# What animations have after their frames is the same as a tEXt chunk, under a name of ComfyUI's.
_TEXT_CHUNKS = (b"tEXt", b"comf", b"zTXt", b"iTXt")
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}


def is_webp(head: bytes) -> bool:
    """Whether a file that begins with these 12 bytes is a WebP."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def png_texts(file: BinaryIO, names: Collection[str], most: int) -> dict[str, bytes]:
    """The texts of a PNG by their names, as far as they are wanted.

    Args:
        file: at any place; it can seek.
        names: of the texts that are wanted.
        most: bytes of a text above which it is refused.

    Raises:
        InvalidWorkflowError: a text is damaged or too long, or the file ends before there is one.
    """
    file.seek(len(PNG))
    texts: dict[str, bytes] = {}
    for kind, length in _png_chunks(file):
        if kind == b"IEND" or len(texts) == len(names):
            return texts
        if kind not in _TEXT_CHUNKS:
            file.seek(length + 4, SEEK_CUR)
            continue
        start = file.read(min(length, _MOST_KEYWORD))
        name = start.partition(b"\0")[0].decode("latin-1")
        if name in names:
            texts[name] = _text(kind, name, start + _rest(file, kind, start, length, most), most)
        else:
            file.seek(length - len(start) + 4, SEEK_CUR)
    if not texts:
        raise InvalidWorkflowError("the PNG is cut off, and has no workflow before that")
    return texts


def webp_texts(file: BinaryIO, names: Collection[str], most: int) -> dict[str, bytes]:
    """The texts of a WebP by their names; arguments and errors are those of `png_texts`."""
    file.seek(12)
    for _ in range(_MOST_CHUNKS):
        at = file.tell()
        head = file.read(8)
        if not head and at == file.seek(0, SEEK_END):
            return {}
        if len(head) < 8:
            break
        kind, length = struct.unpack("<4sI", head)
        if kind != b"EXIF":
            # Chunks begin at even places.
            file.seek(length + length % 2, SEEK_CUR)
            continue
        if length > most:
            raise InvalidWorkflowError(f"the WebP's EXIF data has more than {most:,} bytes")
        exif = file.read(length)
        if len(exif) < length:
            break
        try:
            return dict(_exif_texts(exif.removeprefix(b"Exif\0\0"), names))
        except (struct.error, KeyError):
            raise InvalidWorkflowError("the WebP's EXIF data cannot be read") from None
    raise InvalidWorkflowError("the WebP is cut off, and has no workflow before that")


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk; whoever takes them goes to the end of each."""
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, length


def _rest(file: BinaryIO, kind: bytes, start: bytes, length: int, most: int) -> bytes:
    """The rest of a chunk, of which the start has been read."""
    if length > most:
        raise InvalidWorkflowError(f"a text in the PNG has more than {most:,} bytes")
    rest, checksum = file.read(length - len(start)), file.read(4)
    if len(checksum) < 4:
        raise InvalidWorkflowError("the PNG is cut off in the middle of its workflow")
    if zlib.crc32(kind + start + rest) != int.from_bytes(checksum, "big"):
        raise InvalidWorkflowError("the PNG is damaged: its workflow does not match its checksum")
    return rest


def _text(kind: bytes, name: str, chunk: bytes, most: int) -> bytes:
    """The text of a chunk, which comes after its name."""
    text = chunk[len(name) + 1 :]
    if kind == b"zTXt":
        return _decompressed(name, text[1:], most)
    if kind == b"iTXt":
        is_compressed = text[:1] == b"\1"
        # A language, and the name in that.
        text = text[2:].split(b"\0", 2)[-1]
        return _decompressed(name, text, most) if is_compressed else text
    return text


def _decompressed(name: str, data: bytes, most: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(data, most)
    except zlib.error:
        raise InvalidWorkflowError(f"the {name!r} in the PNG cannot be decompressed") from None
    if not decompressor.eof:
        raise InvalidWorkflowError(
            f"the {name!r} in the PNG decompresses to more than {most:,} bytes, or is cut off"
        )
    return text


def _exif_texts(exif: bytes, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The texts `name:...` of the first directory; later ones of a name do not count."""
    order = _BYTE_ORDERS[exif[:2]]
    (directory,) = struct.unpack_from(f"{order}4xI", exif)
    (count,) = struct.unpack_from(f"{order}H", exif, directory)
    wanted = {f"{name}:".encode(): name for name in names}
    longest = max(map(len, wanted))
    for index in range(count):
        entry = directory + 2 + 12 * index
        length, at = struct.unpack_from(f"{order}4xII", exif, entry)
        beginning = exif[at : at + longest].lower()
        for prefix in [prefix for prefix in wanted if beginning.startswith(prefix)]:
            yield wanted.pop(prefix), exif[at + len(prefix) : at + length].rstrip(b"\0")
