"""Decoding: what Pillow sees, whoever decodes; what strangers broke is refused in one line that names the file."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Augment, Example, decode, eval_stream, train_stream
from nfnet_eqx.images import _formats

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "examples" / "images" / "chelsea.jpg"


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def cases() -> dict[str, bytes]:
    photo = Image.open(PHOTO).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "jpeg": PHOTO.read_bytes(),
        "grey jpeg": saved(photo.convert("L"), "JPEG"),
        "progressive jpeg": saved(photo, "JPEG", progressive=True),
        "jpeg 4:4:4": saved(photo, "JPEG", subsampling=0, quality=98),
        "jpeg in RGB": saved(photo, "JPEG", keep_rgb=True),
        "cmyk jpeg": saved(photo.convert("CMYK"), "JPEG"),
        "jpeg with orientation": saved(photo, "JPEG", exif=turned),
        "jpeg and rubbish": PHOTO.read_bytes() + b"rubbish",
        "png": saved(photo, "PNG"),
        "png with alpha": saved(photo.convert("RGBA"), "PNG"),
        "palette png": saved(photo.convert("P"), "PNG"),
        "webp": saved(photo, "WEBP"),
        "gif": saved(photo.convert("P"), "GIF"),
    }


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("fast", [True, False], ids=["simplejpeg", "without simplejpeg"])
def test_the_pixels_are_those_of_pillow(name: str, fast: bool, monkeypatch: pytest.MonkeyPatch):
    if not fast:
        monkeypatch.setattr(_formats, "simplejpeg", None)
    data = cases()[name]
    # The name's suffix says nothing: ImageNet has a PNG named .JPEG.
    pixels = decode(Example(data, 0, "picture.JPEG"), orient=False)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(Example(data, 0, "picture.JPEG")), np.asarray(upright.convert("RGB")))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_pixels_pass_through_and_grey_becomes_rgb(shape: tuple[int, ...]):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = np.broadcast_to(pixels.reshape(5, 7, -1), (5, 7, 3))
    np.testing.assert_array_equal(decode(Example(pixels, 0, "x")), expected)


def test_what_pillow_warns_of_is_decoded(recwarn: pytest.WarningsRecorder):
    photo = Image.open(PHOTO).convert("RGB")
    data = saved(photo, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    np.testing.assert_array_equal(decode(Example(data, 0, "x")), np.asarray(photo))
    palette = photo.convert("P")
    data = saved(palette, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decode(Example(data, 0, "x")), np.asarray(palette.convert("RGB")))
    large = saved(Image.new("1", (10_000, 10_000)), "PNG")
    with pytest.raises(InputError, match=r"is too large \(10000 x 10000\)"):
        decode(Example(large, 0, "x"))
    assert not recwarn.list


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def giant_jpeg() -> bytes:
    """A JPEG whose header says 60,000 x 60,000."""
    data = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (PHOTO.read_bytes()[:5000], "is damaged"),
        (b"", "is not a picture"),
        (b"\xff\xd8\xff", "is not a picture"),
        (b"<html>Not found</html>", "is not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
        (png(20_000, 20_000), "is too large"),
        (png(1, 2_000_000), "is too large"),
        (giant_jpeg(), "is too large"),
    ],
    ids=["truncated", "empty", "start only", "html", "eps", "bomb", "thin bomb", "jpeg bomb"],
)
def test_what_is_no_picture_is_refused_in_one_line_that_names_it(data: bytes, reason: str):
    with pytest.raises(InputError, match=reason) as caught:
        decode(Example(data, 0, "shard.tar:cat.jpg"))
    assert str(caught.value).startswith("shard.tar:cat.jpg: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["grain", "cv2"])
def test_a_missing_package_is_named_with_how_to_get_it(package: str):
    code = f"import sys; sys.modules[{package!r}] = None\ntry: import nfnet_eqx.data\nexcept ValueError as e: print(e)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == f"nfnet_eqx.data needs {package}: pip install 'nfnet-eqx[train]'\n", result.stderr


def test_a_stream_shows_photos_upright_unless_it_is_told_not_to():
    turned = Image.Exif()
    turned[0x0112] = 6
    photo = Image.open(PHOTO).convert("RGB").crop((0, 0, 48, 36))
    data = saved(photo, "PNG", exif=turned)

    class One:
        name, classes, num_classes = "one", None, 1

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Example:
            return Example(data, 0, "photo.png")

    def shape(picture: Image.Image) -> np.ndarray:
        return np.full((1, 1, 1), picture.width / picture.height, np.float32)

    (upright,) = eval_stream(One(), shape, batch_size=1)
    (lying,) = eval_stream(One(), shape, batch_size=1, orient=False)
    assert (float(upright.image[0, 0, 0, 0]), float(lying.image[0, 0, 0, 0])) == (0.75, pytest.approx(4 / 3))
    stream = train_stream(One(), Augment(crop="none", flip=False), image_size=36, batch_size=1, seed=0)
    batch = next(stream)
    stream.close()
    expected = np.asarray(photo.transpose(Image.Transpose.ROTATE_270).resize((36, 36)), np.int32)
    assert np.abs(batch.image[0] - expected).mean() < 8
