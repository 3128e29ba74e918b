"""Opening what people call an image: the name of a file, its bytes, or what another library made of it."""

import contextlib
import io
import os
import stat
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.images._formats import decode_file, eight_bits, one_line, rgb, turn_of, turned


@runtime_checkable
class BinaryFile(Protocol):
    """A file that is open for reading bytes, or what acts as one: a `BytesIO`, an upload."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; by default all that are left."""
        ...


ImageLike = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Image.Image | np.ndarray | Array
)  # fmt: skip


def open_image(image: ImageLike, *, orient: bool = True) -> Image.Image:
    """The image as RGB, fully decoded; the first frame of several.

    It is what Pillow's `convert("RGB")` gives, transparency dropped, with two differences. An image with an EXIF
    orientation tag is turned upright, as a photo of a phone needs (TIFF has a tag of its own, which Pillow itself
    applies). And 16 bits of grey become 8 by scaling: 65,535 is 255, and what lies between is rounded to the nearest
    level, where Pillow makes all above 255 white. (Of 16 bits of colour, Pillow keeps the upper 8.) Grey of 32 bits is
    refused: nothing says which number is white.

    Args:
        image: the name of a file; what a file holds, as bytes; a binary file, which is read from its start and stays
            open; a Pillow image; an array of NumPy's, JAX's or another library's that can be one of NumPy's: integers
            of 8 or 16 bits without sign, (height, width), (height, width, 1) or (height, width, 3).
        orient: whether the tag is applied. Published accuracies were measured without.

    Raises:
        InputError: the file is missing, a folder, empty, no image, damaged or too large, or what was given cannot be an
            image; the message names it.
    """
    if isinstance(image, str | os.PathLike):
        name = os.fsdecode(image)
        with _open_file(name) as file:
            return _as_pillow(decode_file(file, name, orient=orient))
    if isinstance(image, bytes | bytearray | memoryview):
        return _from_bytes(bytes(image), orient=orient)
    if isinstance(image, Image.Image):
        return _from_pillow(image, orient=orient)
    if isinstance(image, BinaryFile):
        return _from_bytes(_read_all(image), orient=orient)
    if hasattr(image, "__array__"):
        return _from_array(np.asarray(image))
    raise InputError(
        f"image: {_described(image)} is not an image; give a file name, bytes, a file opened with mode 'rb', a Pillow"
        " image, or an array of uint8"
    )


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuse a file that no image can be read from, without reading it.

    Raises:
        InputError: it is missing, a folder, no regular file, empty, or may not be read; the message names it.
    """
    _open_file(os.fsdecode(path)).close()


def _open_file(name: str) -> io.BufferedReader:
    try:
        status = os.stat(name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{name}: cannot be opened ({reason}); check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name}: is a folder, not a picture; name a picture in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: is not a regular file; save the picture to a file first")
    if status.st_size == 0:
        raise InputError(f"{name}: is empty (0 bytes); fetch or save it again")
    try:
        return open(name, "rb")
    except OSError as error:
        raise InputError(f"{name}: cannot be opened ({error.strerror}); check who may read it") from None


def _from_bytes(data: bytes, *, orient: bool) -> Image.Image:
    if not data:
        raise InputError("image: there are no bytes in it (0 bytes); give all that the file holds")
    return _as_pillow(decode_file(io.BytesIO(data), "image", orient=orient))


def _read_all(file: BinaryFile) -> bytes:
    """All of a file, wherever it stands: who has just written or looked at it rarely remembers to go back."""
    try:
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):
            file.seek(0)  # pyright: ignore[reportAttributeAccessIssue]
        data = file.read()
    except Exception as error:  # closed, open for writing, not UTF-8, a connection that broke
        raise InputError(
            f"image: the file cannot be read ({one_line(error)}); give one that is open with mode 'rb'"
        ) from None
    if not isinstance(data, bytes):
        raise InputError(f"image: the file gives {_described(data)}, not bytes; open it with mode 'rb'")
    return data


def _from_pillow(image: Image.Image, *, orient: bool) -> Image.Image:
    try:
        converted = rgb(image, "image")
        return turned(converted, turn_of(image) if orient else None)
    except InputError:
        raise
    except Exception as error:  # it was opened without being read, and now its file is closed or cut off
        raise InputError(
            f"image: Pillow cannot read it ({one_line(error)}); give a Pillow image that is whole and open, or its file"
        ) from None


def _from_array(array: np.ndarray) -> Image.Image:
    levels = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if (
        levels.dtype.kind != "u"
        or levels.dtype.itemsize > 2
        or levels.ndim not in (2, 3)
        or levels.shape[2:] not in ((), (3,))
        or not levels.size
    ):
        raise InputError(
            f"image: an array of {array.dtype} and shape {array.shape} is not a picture: give uint8 of shape"
            " (height, width, 3) or (height, width)"
        )
    if levels.dtype.itemsize == 2:
        levels = eight_bits(levels)
    return Image.fromarray(np.ascontiguousarray(levels)).convert("RGB")


def _as_pillow(decoded: Image.Image | np.ndarray) -> Image.Image:
    return Image.fromarray(decoded) if isinstance(decoded, np.ndarray) else decoded


def _described(thing: Any) -> str:
    """What was given, for a message: short, whatever it is."""
    return "None" if thing is None else f"a {type(thing).__name__}"
