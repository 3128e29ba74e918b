"""Opening pictures that strangers made."""

import os
import stat
import warnings

from PIL import Image

from nfnet_eqx._errors import InputError

# Decoded and converted, a picture of this size takes half a gigabyte. The file's own size says nothing: a few kilobytes
# of PNG can hold gigapixels of one colour.
MAX_PIXELS = 64 * 1024 * 1024

# A JPEG's limit. Pillow needs memory for each row beside that for its pixels.
_MAX_SIDE = 65_535

# These decoders keep further copies of the whole picture: half as many pixels take as much memory.
_HUNGRY_FORMATS = ("AVIF", "JPEG2000", "WEBP")

# What cameras, phones and the web make. Pillow knows more, among them formats that start another program (EPS).
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture as RGB, fully decoded; the first frame of several.

    It is what `PIL.Image.open(path).convert("RGB")` gives, and so what timm sees: no orientation tag is applied,
    transparency is dropped, sixteen bits become eight by Pillow's rule.

    Raises:
        InputError: the file is missing, a folder, empty, no picture, damaged or too large; the message names it.
    """
    name = os.fspath(path)
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
    with warnings.catch_warnings():
        # About broken tags, odd palettes and large pictures: the first two do not touch the pixels, the last is ours.
        warnings.simplefilter("ignore")
        Image.init()
        try:
            with Image.open(name, formats=[f for f in _FORMATS if f in Image.OPEN]) as image:
                width, height = image.size
                limit = MAX_PIXELS // 2 if image.format in _HUNGRY_FORMATS else MAX_PIXELS
                if width * height <= limit and max(width, height) <= _MAX_SIDE:
                    return image.convert("RGB")
        except Image.UnidentifiedImageError:
            raise InputError(f"{name}: is not a picture of a known format; save it as JPEG or PNG") from None
        except Image.DecompressionBombError:
            raise InputError(f"{name}: is too large; make it smaller than {MAX_PIXELS:,} pixels") from None
        except PermissionError as error:
            raise InputError(f"{name}: cannot be opened ({error.strerror}); check who may read it") from None
        except MemoryError:
            raise InputError(f"{name}: does not fit into memory; make it smaller") from None
        except Exception as error:  # Decoders of damaged files raise anything: OSError, SyntaxError, struct.error, ...
            raise InputError(f"{name}: is damaged ({_one_line(error)}); fetch or save it again") from None
    raise InputError(
        f"{name}: is too large ({width} x {height}); make it smaller than {limit:,} pixels and {_MAX_SIDE:,} a side"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
