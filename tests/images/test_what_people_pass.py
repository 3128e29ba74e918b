"""An image is whatever people call one: opened where it can be, one sentence where it cannot."""

import contextlib
import io
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.images import Preprocess, decode_image, open_image

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "preprocess"
PHOTO = ROOT / "examples" / "images" / "chelsea.jpg"
LANDSCAPE = DATA / "landscape.png"
PIXELS = np.asarray(Image.open(LANDSCAPE))


class Upload:
    """What a web framework hands over: it reads, and is no file of Python's."""

    def read(self, size: int = -1, /) -> bytes:
        return LANDSCAPE.read_bytes()


class PathLike:
    def __fspath__(self) -> str:
        return str(LANDSCAPE)


class Tensor:
    """Another library's array."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return PIXELS


def read_to_its_end() -> io.BytesIO:
    file = io.BytesIO(LANDSCAPE.read_bytes())
    file.read()
    return file


OPENED: dict[str, Callable[[], object]] = {
    "a name": lambda: str(LANDSCAPE),
    "a path": lambda: LANDSCAPE,
    "a path-like": PathLike,
    "bytes": LANDSCAPE.read_bytes,
    "a bytearray": lambda: bytearray(LANDSCAPE.read_bytes()),
    "a memoryview": lambda: memoryview(LANDSCAPE.read_bytes()),
    "a file": lambda: LANDSCAPE.open("rb"),
    "a BytesIO": lambda: io.BytesIO(LANDSCAPE.read_bytes()),
    "a BytesIO at its end": read_to_its_end,
    "an upload": Upload,
    "a lazy Pillow image": lambda: Image.open(LANDSCAPE),
    "a loaded Pillow image": lambda: Image.fromarray(PIXELS),
    "a Pillow image with alpha": lambda: Image.fromarray(PIXELS).convert("RGBA"),
    "NumPy": lambda: PIXELS,
    "NumPy, backwards in memory": lambda: PIXELS[:, ::-1].copy()[:, ::-1],
    "NumPy, 16 bits": lambda: PIXELS.astype(np.uint16) * 257,
    "NumPy, 16 bits, big-endian": lambda: (PIXELS.astype(np.uint16) * 257).astype(">u2"),
    "JAX": lambda: jnp.asarray(PIXELS),
    "another library's array": Tensor,
}


@contextlib.contextmanager
def closing(thing: object) -> Iterator[object]:
    yield thing
    if isinstance(thing, io.IOBase | Image.Image):
        thing.close()


@pytest.mark.parametrize("kind", OPENED)
def test_all_of_these_are_the_same_image(kind: str):
    # Past the annotation, which does not know everything that has `__array__`.
    with closing(OPENED[kind]()) as image:
        opened = open_image.__wrapped__(image)  # type: ignore[attr-defined]
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(opened), PIXELS)


def test_grey_arrays_are_grey_images():
    grey = np.asarray(Image.open(LANDSCAPE).convert("L"))
    for array in (grey, grey[:, :, None], grey.astype(np.uint16) * 257, jnp.asarray(grey)):
        np.testing.assert_array_equal(np.asarray(open_image(array)), np.repeat(grey[:, :, None], 3, 2))


def test_the_file_that_was_given_stays_open():
    with LANDSCAPE.open("rb") as file:
        open_image(file)
        assert not file.closed
        open_image(file)


def closed_pillow() -> Image.Image:
    with LANDSCAPE.open("rb") as file:
        return Image.open(file)


def closed_file() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "None": (lambda: None, "None is not an image"),
    "a number": (lambda: 7, "a int is not an image"),
    "a list": (lambda: [str(LANDSCAPE)], "a list is not an image"),
    "a class": (lambda: Image.Image, "a type is not an image"),
    "no bytes": (lambda: b"", "no bytes in it"),
    "bytes that are no image": (lambda: b"<html>", "not a picture of a known format"),
    "a text file": (lambda: io.StringIO("cat"), "gives a str, not bytes"),
    "a photo opened as text": (lambda: PHOTO.open(encoding="utf-8"), "mode 'rb'"),
    "a closed file": (closed_file, "closed file"),
    "a file open for writing": (lambda: io.BufferedWriter(io.BytesIO()), "mode 'rb'"),
    "an empty file": (io.BytesIO, "no bytes in it"),
    "half a file": (lambda: io.BytesIO(PHOTO.read_bytes()[:9_000]), "damaged"),
    "a truncated Pillow image": (lambda: Image.open(io.BytesIO(LANDSCAPE.read_bytes()[:9_000])), "whole and open"),
    "a closed Pillow image": (closed_pillow, "whole and open"),
    "float pixels": (lambda: PIXELS / 255, "uint8 of shape"),
    "signed pixels": (lambda: jnp.asarray(PIXELS, jnp.int32), "uint8 of shape"),
    "a scalar": (lambda: np.float32(0.5), "uint8 of shape"),
    "channels first": (lambda: PIXELS.transpose(2, 0, 1), "uint8 of shape"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_an_image_is_refused_in_one_line(kind: str):
    make, reason = REFUSED[kind]
    with closing(make()) as image, pytest.raises(InputError, match=reason) as error:
        open_image.__wrapped__(image)  # type: ignore[attr-defined]
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("image: ")


def test_a_users_program_meets_the_same_refusal():
    code = """
import numpy as np, nfnet_eqx as nfx
for image in (None, 7, [], np.zeros((2, 2))):
    try:
        nfx.Preprocess()(image)
    except ValueError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert [line[:7] for line in result.stdout.splitlines()] == ["image: "] * 4, result.stderr


def sixteen_bit_pgm(levels: np.ndarray) -> bytes:
    return b"P5 %d %d 65535\n" % levels.shape[::-1] + levels.astype(">u2").tobytes()


def saved(levels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind)
    return buffer.getvalue()


LEVELS = np.arange(65_536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize(
    "data",
    [saved(LEVELS, "PNG"), saved(LEVELS, "TIFF"), saved(LEVELS.astype(">u2"), "TIFF"), sixteen_bit_pgm(LEVELS)],
    ids=["png", "tiff", "big-endian tiff", "pgm"],
)
def test_sixteen_bits_of_grey_become_the_nearest_of_eight(data: bytes):
    expected = np.rint(LEVELS * (255 / 65_535)).astype(np.uint8)
    for pixels in (
        decode_image(data),
        np.asarray(open_image(data)),
        np.asarray(open_image(Image.open(io.BytesIO(data)))),
    ):
        np.testing.assert_array_equal(pixels, np.repeat(expected[:, :, None], 3, 2))


@pytest.mark.parametrize("levels", [LEVELS.astype(np.int32), LEVELS.astype(np.float32)], ids=["integers", "floats"])
def test_thirty_two_bits_of_grey_are_refused_with_the_remedy(levels: np.ndarray):
    with pytest.raises(InputError, match="32 bits a pixel.*save it with 8 or 16 bits"):
        decode_image(saved(levels, "TIFF"), "x.tif")
    with pytest.raises(InputError, match="32 bits a pixel"):
        open_image(Image.fromarray(levels))


def odd_images() -> list[object]:
    """Images of which Pillow warns: a large one, a broken tag, a palette with transparency."""
    photo = Image.open(PHOTO).convert("RGB").resize((40, 30))
    broken = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    files = []
    for kind, picture, options in (
        ("PNG", Image.new("1", (10_000, 10_000)), {}),
        ("JPEG", photo, {"exif": broken}),
        ("PNG", photo, {"exif": broken}),
        ("PNG", photo.convert("P"), {"transparency": bytes(range(256))}),
        ("JPEG", photo.convert("CMYK"), {"exif": broken}),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    lazy = Image.open(io.BytesIO(files[3]))
    return [*files, lazy, files[1][:400], PHOTO]


def test_from_many_threads_the_filters_of_warnings_stay_as_they_were():
    images = odd_images() * 12
    filters, before = warnings.filters, list(warnings.filters)
    seen = set()
    start = threading.Barrier(8)

    def work(part: int) -> None:
        start.wait()
        for image in images[part::8]:
            with contextlib.suppress(InputError):
                Preprocess(input_size=(16, 16))(image)
            with contextlib.suppress(InputError):
                if isinstance(image, bytes):
                    decode_image(image)
            seen.add((id(warnings.filters), tuple(warnings.filters)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert warnings.filters is filters
    assert seen == {(id(filters), tuple(before))}, "they were others for a while"
    with pytest.warns(UserWarning, match="of the program"):
        warnings.warn("of the program", UserWarning, stacklevel=1)


def test_what_pillow_would_warn_of_warns_nobody(recwarn: pytest.WarningsRecorder):
    for image in odd_images():
        with contextlib.suppress(InputError):
            open_image.__wrapped__(image)  # type: ignore[attr-defined]
    assert not recwarn.list


def encoded() -> list[bytes]:
    """A small image in every format, grey and in colour."""
    found = []
    photo = Image.open(PHOTO).convert("RGB").resize((24, 18))
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "JPEG2000", "PPM", "TIFF"):
        for picture in (photo, photo.convert("L")):
            buffer = io.BytesIO()
            picture.save(buffer, kind)
            found.append(buffer.getvalue())
    return [*found, saved(LEVELS[:16, :16], "PNG"), sixteen_bit_pgm(LEVELS[:16, :16])]


ENCODED = encoded()


@hypothesis.given(st.data())
def test_any_change_of_any_file_gives_an_image_or_one_sentence(data: st.DataObject):
    image = bytearray(data.draw(st.sampled_from(ENCODED)))
    for _ in range(data.draw(st.integers(1, 6))):
        # Most of what decides is at the start.
        place = data.draw(st.integers(0, min(len(image) - 1, 80)) | st.integers(0, len(image) - 1))
        image[place] = data.draw(st.integers(0, 255))
    cut = bytes(image[: data.draw(st.integers(1, len(image)))]) if data.draw(st.booleans()) else bytes(image)
    try:
        assert decode_image(cut, "x.jpg").shape[2] == 3
    except InputError as error:
        assert str(error).startswith("x.jpg: ")
        assert "\n" not in str(error)


def test_the_first_of_a_phones_two_images_is_taken():
    photos = [Image.open(PHOTO).convert("RGB").resize((24, 18)), Image.new("RGB", (24, 18))]
    buffer = io.BytesIO()
    photos[0].save(buffer, "MPO", save_all=True, append_images=photos[1:])
    np.testing.assert_array_equal(decode_image(buffer.getvalue()), np.asarray(Image.open(buffer).convert("RGB")))
