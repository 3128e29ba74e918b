"""A photo stands upright, whatever the camera was held like, in every format and by every way in."""

import io
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image, ImageOps

from nfnet_eqx.images import _formats, decode_image, open_image
from nfnet_eqx.images._exif import jpeg_exif, jpeg_without_metadata, turn

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "images" / "chelsea.jpg"
TAGS = range(1, 9)


def tagged(orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """A part of a photo, no symmetry in it, with the tag."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.crop((100, 50, 164, 93)).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def expected(data: bytes, *, orient: bool = True) -> np.ndarray:
    """Pillow's own answer."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return np.asarray((ImageOps.exif_transpose(image) if orient else image).convert("RGB"))


@pytest.mark.parametrize("orientation", TAGS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_orientation_of_every_format_is_turned_as_pillow_turns_it(kind: str, orientation: int):
    data = tagged(orientation, kind)
    np.testing.assert_array_equal(decode_image(data), expected(data))
    np.testing.assert_array_equal(np.asarray(open_image(data)), expected(data))
    np.testing.assert_array_equal(decode_image(data, orient=False), expected(data, orient=False))


@pytest.mark.parametrize("orientation", TAGS)
def test_without_simplejpeg_it_is_the_same(orientation: int, monkeypatch: pytest.MonkeyPatch):
    data = tagged(orientation)
    fast = decode_image(data)
    monkeypatch.setattr(_formats, "simplejpeg", None)
    np.testing.assert_array_equal(decode_image(data), fast)


def test_it_is_turned_once_however_often_it_is_opened():
    data = tagged(6)
    once = open_image(data)
    assert once.size == (43, 64)
    np.testing.assert_array_equal(np.asarray(open_image(once)), np.asarray(once))
    with Image.open(io.BytesIO(data)) as image:
        by_hand = ImageOps.exif_transpose(image)
        np.testing.assert_array_equal(np.asarray(open_image(image)), np.asarray(by_hand))
        np.testing.assert_array_equal(np.asarray(open_image(by_hand)), np.asarray(by_hand))


def directory(*entries: bytes, count: int | None = None) -> bytes:
    number = len(entries) if count is None else count
    return b"Exif\0\0MM\0*\0\0\0\x08" + number.to_bytes(2, "big") + b"".join(entries)


ORIENTATION = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"


def test_the_tag_is_found_behind_others_and_in_both_byte_orders():
    make = b"\x01\x0f\0\x02\0\0\0\x03ab\0\0"
    assert turn(directory(make, ORIENTATION)) is Image.Transpose.ROTATE_270
    assert turn(b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0") is Image.Transpose.ROTATE_90


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0XX\0*\0\0\0\x08" + b"\0" * 20,
        directory(count=65_535),
        directory(ORIENTATION[:-4]),
        directory(ORIENTATION.replace(b"\0\x06", b"\0\x09")),
        directory(ORIENTATION.replace(b"\0\x06", b"\0\0")),
        directory(ORIENTATION.replace(b"\0\x03", b"\0\x02")),
        directory(ORIENTATION.replace(b"\0\0\0\x01", b"\0\0\0\x02")),
    ],
)
def test_a_broken_tag_is_ignored(exif: bytes):
    assert turn(exif) is None


@hypothesis.given(st.binary(max_size=64))
def test_any_bytes_are_read_as_exif_without_an_exception(data: bytes):
    turn(data)
    turn(b"Exif\0\0II*\0" + data)


@hypothesis.given(st.data())
def test_any_change_of_a_jpegs_head_costs_no_exception(data: st.DataObject):
    jpeg = bytearray(tagged(6))
    for _ in range(data.draw(st.integers(0, 8))):
        jpeg[data.draw(st.integers(2, 200))] = data.draw(st.integers(0, 255))
    cut = bytes(jpeg[: data.draw(st.integers(2, len(jpeg)))])
    turn(jpeg_exif(cut))
    assert len(jpeg_without_metadata(cut)) <= len(cut)


def test_without_metadata_a_jpeg_has_the_same_pixels():
    data = tagged(6, icc_profile=b"x" * 70_000, comment=b"about nothing")
    bare = jpeg_without_metadata(data)
    assert len(bare) < len(data) - 70_000
    np.testing.assert_array_equal(expected(bare), expected(data, orient=False))
