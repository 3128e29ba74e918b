"""From an encoded picture to its pixels, whoever made it."""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.data._sources import Example

try:
    import simplejpeg
except ImportError:  # Pillow decodes the same pixels at half the speed
    simplejpeg = None

# As for a single picture (zoo): half a gigabyte once decoded and converted; the size of the file says nothing.
_MAX_PIXELS = 64 * 1024 * 1024
_MAX_SIDE = 65_535  # a JPEG's limit; Pillow needs memory for each row beside that for its pixels
_HUNGRY_FORMATS = ("AVIF", "JPEG2000", "WEBP")  # their decoders keep further copies
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")


def decode(example: Example) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an example in RGB: what `PIL.Image.open(...).convert("RGB")` gives, JPEGs in half the time.

    No orientation tag is applied, as everywhere in nfnet_eqx.

    Raises:
        InputError: it is no picture, damaged, truncated or too large; the message names it.
    """
    pixels = _decode(example.image, example.name) if isinstance(example.image, bytes) else example.image
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _decode(data: bytes, name: str) -> np.ndarray:
    if simplejpeg is not None and data.startswith(b"\xff\xd8"):
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            # Pillow has its own way with four channels. What is too large or damaged it refuses below.
            if colorspace in ("YCbCr", "Gray", "RGB") and _fits(int(height), int(width), _MAX_PIXELS):
                return simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            pass
    # They are about broken tags and odd palettes, which do not touch the pixels, and about large pictures, which we
    # refuse ourselves. Silenced for good, since `catch_warnings` is not for threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            width, height = image.size
            limit = _MAX_PIXELS // 2 if image.format in _HUNGRY_FORMATS else _MAX_PIXELS
            if _fits(height, width, limit):
                return np.asarray(image.convert("RGB"))
    except Image.UnidentifiedImageError:
        raise InputError(f"{name}: is not a picture of a known format; save it as JPEG or PNG") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: is too large; make it smaller than {_MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit into memory; make it smaller") from None
    except Exception as error:  # Decoders of damaged files raise anything: OSError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: is damaged ({reason}); fetch or save it again") from None
    raise InputError(
        f"{name}: is too large ({width} x {height}); make it smaller than {limit:,} pixels and {_MAX_SIDE:,} a side"
    )


def _fits(height: int, width: int, limit: int) -> bool:
    return height * width <= limit and max(height, width) <= _MAX_SIDE


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]
