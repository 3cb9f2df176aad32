"""EXIF, of which only the orientation stays: without it a picture would be seen turned."""

from typing import Literal

MARK = b"Exif\0\0"
READ_BYTES = 64 * 1024
"""As far into EXIF data it is looked for the orientation."""

_ORIENTATION = 0x0112
_UPRIGHT = 1
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}


def orientation(exif: bytes) -> int:
    """The orientation, 1 to 8; 1, upright, if there is none."""
    tiff = exif.removeprefix(MARK)
    order = _ORDERS.get(tiff[:4])
    if order is None:
        return _UPRIGHT
    entries = int.from_bytes(tiff[4:8], order) + 2
    count = int.from_bytes(tiff[entries - 2 : entries], order)
    for at in range(entries, min(entries + 12 * count, len(tiff)), 12):
        if int.from_bytes(tiff[at : at + 2], order) == _ORIENTATION:
            value = int.from_bytes(tiff[at + 8 : at + 10], order)
            return value if 1 <= value <= 8 else _UPRIGHT
    return _UPRIGHT


def orientation_only(exif: bytes) -> bytes:
    """EXIF data, without its mark, with no more than the orientation of some other."""
    return (
        b"MM\0*\0\0\0\x08\0\x01"
        + _ORIENTATION.to_bytes(2)
        + b"\0\x03\0\0\0\x01"
        + orientation(exif).to_bytes(2)
        + bytes(6)
    )


def is_turned(exif: bytes) -> bool:
    """Whether the picture is to be shown other than as it is stored."""
    return orientation(exif) != _UPRIGHT
