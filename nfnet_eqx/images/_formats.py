"""The one decoder: from an encoded image, whoever made it, to its pixels in RGB.

Nothing here changes `warnings.filters`, which all threads of a program share. What Pillow would warn of does not reach
it instead: sizes are checked here, metadata is read here (`_exif`), transparency is dropped before a conversion.
"""

import io
import struct

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.images._exif import jpeg_exif, jpeg_without_metadata, turn

try:
    import simplejpeg
except ImportError:  # Pillow decodes the same pixels at half the speed
    simplejpeg = None

# Decoded and converted, an image of this size takes half a gigabyte. The file's own size says nothing: a few kilobytes
# of PNG can hold gigapixels of one colour.
MAX_PIXELS = 64 * 1024 * 1024

# A JPEG's limit. Pillow needs memory for each row beside that for its pixels.
_MAX_SIDE = 65_535

# These decoders keep further copies of the whole image: half as many pixels take as much memory.
_HUNGRY_FORMATS = ("AVIF", "JPEG2000", "WEBP")

# What cameras, phones and the web make. Pillow knows more, among them formats that start another program (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "JPEG2000", "PPM", "TIFF")
SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split()
)  # fmt: skip

# Where Pillow's mode of 32 bits holds the 16 of these formats.
_SIXTEEN_BITS_AS_32 = ("PNG", "PPM")


def decode_image(data: bytes, name: str = "image", *, orient: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an encoded image, as `open_image` gives them.

    Args:
        data: what a file holds.
        name: what an error calls it.
        orient: turn it upright as its EXIF data says.

    Raises:
        InputError: it is no image, damaged, truncated or too large; the message names it.
    """
    return np.asarray(decode_file(io.BytesIO(data), name, orient=orient))


def decode_file(
    file: io.BufferedReader | io.BytesIO, name: str, *, orient: bool
) -> Image.Image | UInt8[np.ndarray, "h w 3"]:
    """The image in a file that can seek and stands at its start, in whichever form costs nothing more.

    Raises:
        InputError: as `decode_image`.
    """
    try:
        if file.read(2) == b"\xff\xd8":
            file.seek(0)
            return _decode_jpeg(file.read(), name, orient)
        return _decode_with_pillow(file, name, orient)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{name}: is too large; make it smaller than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit into memory; make it smaller") from None
    except Exception as error:  # Decoders of damaged files raise anything: OSError, SyntaxError, struct.error, ...
        raise InputError(f"{name}: is damaged ({one_line(error)}); fetch or save it again") from None


def rgb(image: Image.Image, name: str) -> Image.Image:
    """A Pillow image as a new one in RGB, without metadata: no one can turn it once more.

    Raises:
        InputError: its pixels have 32 bits.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS_AS_32):
        converted = Image.fromarray(eight_bits(np.asarray(image))).convert("RGB")
    elif image.mode in ("I", "F"):
        raise InputError(
            f"{name}: has one number of 32 bits a pixel, and nothing says which is white; save it with 8 or 16 bits"
        )
    else:
        if isinstance(image.info.get("transparency"), bytes):  # of a palette: Pillow would warn that it is dropped
            image = image.copy()
            del image.info["transparency"]
        converted = image.convert("RGB")
    converted.info = {}
    return converted


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns a Pillow image upright; it has to be loaded, for some formats have their metadata at the end."""
    exif = image.info.get("exif")
    return turn(exif) if isinstance(exif, bytes) else None


def turned(image: Image.Image, how: Image.Transpose | None) -> Image.Image:
    """The image, turned if it has to be."""
    return image if how is None else image.transpose(how)


def eight_bits(levels: Integer[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Sixteen bits as eight: 65,535 becomes 255, and what lies between the nearest level."""
    return (levels // 257 + (levels % 257 > 128)).astype(np.uint8)


def one_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _decode_jpeg(data: bytes, name: str, orient: bool) -> Image.Image | UInt8[np.ndarray, "h w 3"]:
    how = turn(jpeg_exif(data)) if orient else None
    pixels = _decode_with_simplejpeg(data)
    if pixels is not None and how is None:
        return pixels
    if pixels is None:
        # Pillow reads more of the metadata than it needs, and warns where that is broken.
        image = _decode_with_pillow(io.BytesIO(jpeg_without_metadata(data)), name, orient=False)
    else:
        image = Image.fromarray(pixels)
        del pixels  # a large photo must not be in memory three times
    return turned(image, how)


def _decode_with_simplejpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """`None` for what Pillow has to decide: four channels, of which it has its own way, and what cannot be decoded."""
    if simplejpeg is None:
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if colorspace in ("YCbCr", "Gray", "RGB") and _fits(int(height), int(width), MAX_PIXELS):
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        pass
    return None


def _decode_with_pillow(file: io.BufferedReader | io.BytesIO, name: str, orient: bool) -> Image.Image:
    image = _identify(file, name)
    width, height = image.size
    # Sixteen bits take a few copies as well.
    hungry = image.format in _HUNGRY_FORMATS or image.mode.startswith("I")
    limit = MAX_PIXELS // 2 if hungry else MAX_PIXELS
    if not _fits(height, width, limit):
        raise InputError(
            f"{name}: is too large ({width} x {height}); make it smaller than {limit:,} pixels and {_MAX_SIDE:,} a side"
        )
    converted = rgb(image, name)
    how = turn_of(image) if orient else None
    image.close()  # as in `_decode_jpeg`
    return turned(converted, how)


def _identify(file: io.BufferedReader | io.BytesIO, name: str) -> Image.Image:
    """The image with its header read. `Image.open` does the same, and warns of sizes that are refused here."""
    Image.init()
    file.seek(0)
    head = file.read(16)
    for kind in _FORMATS:
        factory, accepts = Image.OPEN.get(kind, (None, None))
        # A text instead of an answer: this Pillow was built without the format.
        accepted = accepts is None or accepts(head)
        if factory is None or not accepted or isinstance(accepted, str):
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # how Pillow's classes say: not this format
            continue
    raise InputError(f"{name}: is not a picture of a known format; save it as JPEG or PNG")


def _fits(height: int, width: int, limit: int) -> bool:
    return height * width <= limit and max(height, width) <= _MAX_SIDE
