"""Which way is up: the orientation tag of EXIF data, read here because Pillow warns of what is broken in the rest."""

import struct
from collections.abc import Iterator

from PIL import Image

_ORIENTATION = 0x0112
_SHORT = 3  # the tag's type: an integer of 16 bits

# What turns an image upright, by its tag; 1 is upright already.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_APP0, _APP1, _APP14, _APP15, _COMMENT, _START_OF_SCAN = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE, 0xDA
_EXIF = b"Exif\0\0"


def turn(exif: bytes) -> Image.Transpose | None:
    """What turns an image with this EXIF data upright; `None` where nothing has to be done, or the data is broken.

    References:
        Exif 2.32 (CIPA DC-008), 4.6.4 A: the tag; TIFF 6.0, section 2: the directory that holds it.
    """
    exif = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for i in range(entries):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * i)
            if tag == _ORIENTATION:
                return _TURNS.get(value) if (kind, count) == (_SHORT, 1) else None
    except struct.error:  # it ends before it should
        pass
    return None


def jpeg_exif(data: bytes) -> bytes:
    """The EXIF data of a JPEG; empty where it has none."""
    for marker, start, end in _segments(data):
        if marker == _APP1 and data.startswith(_EXIF, start + 4):
            return data[start + 4 : end]
    return b""


def jpeg_without_metadata(data: bytes) -> bytes:
    """The JPEG without the segments that do not touch the pixels; its colours (JFIF, Adobe) stay."""
    kept, at = [], 0
    for marker, start, end in _segments(data):
        if _APP0 < marker <= _APP15 and marker != _APP14 or marker == _COMMENT:
            kept.append(data[at:start])
            at = end
    return b"".join([*kept, data[at:]])


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment before the compressed pixels, as far as they are whole."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        if data[at + 1] == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 1], at, end
        at = end
