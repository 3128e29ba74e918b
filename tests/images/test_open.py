"""Pictures that strangers made: opened as Pillow opens them, or refused in one line that names the file and why."""

import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.images import _formats, check_file, open_image

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "examples" / "images" / "chelsea.jpg"
DATA = ROOT / "tests" / "data" / "preprocess"
PICTURES = sorted(path.name for path in DATA.glob("*") if path.suffix in (".png", ".tif"))


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A grey PNG that claims a size, whatever its data holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "sixteen.png"])
def test_a_picture_is_what_pillow_makes_of_it_in_rgb(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(DATA / name) as image:
            expected = np.asarray(image.convert("RGB"))
    picture = open_image(DATA / name, orient=False)  # a warning of Pillow's would fail the test
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), expected)


def test_broken_exif_costs_neither_the_photo_nor_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "photo.jpg"
    with Image.open(PHOTO) as photo:
        photo.save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert open_image(path).size == (451, 300)
    monkeypatch.setattr(_formats, "simplejpeg", None)
    assert open_image(path).size == (451, 300)


def test_only_the_first_frame_of_an_animation_is_taken(tmp_path: Path):
    path = tmp_path / "frames.gif"
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    red.save(path, save_all=True, append_images=[blue])
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)


def folder(path: Path) -> None:
    path.mkdir()


def cut(name: str, kept: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with Image.open(PHOTO) as photo:
            whole = path.with_name(f"whole.{name}")
            photo.save(whole)
        path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * kept)])

    return write


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file"),
    "folder": (folder, "is a folder"),
    "pipe": (os.mkfifo, "not a regular file"),
    "empty": (Path.touch, r"empty \(0 bytes\)"),
    "text": (lambda path: path.write_text("a cat\n"), "not a picture"),
    "postscript": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not a picture"),
    "half a jpeg": (cut("jpg", 0.5), "damaged|not a picture"),
    "half a png": (cut("png", 0.5), "damaged|not a picture"),
    "half a webp": (cut("webp", 0.5), "damaged|not a picture"),
    "half a tiff": (cut("tif", 0.5), "damaged|not a picture"),
    "half a gif": (cut("gif", 0.5), "damaged|not a picture"),
    "the head of a jpeg": (cut("jpg", 0.01), "damaged|not a picture"),
    "noise": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8), "damaged|not a picture"),
    "a png without data": (lambda path: path.write_bytes(png(64, 64)), "damaged"),
    "a bomb": (lambda path: path.write_bytes(png(50_000, 50_000)), "too large"),
    "a smaller bomb": (lambda path: path.write_bytes(png(9_000, 9_000)), r"too large \(9000 x 9000\)"),
    "a thread": (lambda path: path.write_bytes(png(1, 1_000_000)), r"too large \(1 x 1000000\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_whole_picture_is_refused_in_one_line(kind: str, tmp_path: Path):
    path = tmp_path / "picture.jpg"
    make, reason = REFUSED[kind]
    make(path)
    with pytest.raises(InputError, match=reason) as error:
        open_image(path)
    if kind in ("missing", "folder", "pipe", "empty"):
        with pytest.raises(InputError, match=reason):
            check_file(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path):
    path = tmp_path / "private.jpg"
    path.write_bytes(PHOTO.read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="Permission denied"):
        open_image(path)


PEAK = """
import re, sys
from nfnet_eqx.images import Preprocess
try:
    print(Preprocess()(sys.argv[1]).shape)
except ValueError as error:
    print(error)
# Not ru_maxrss: a child inherits that from the process that started it.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("side", [12_000, 8_000], ids=["a bomb", "the largest that is opened"])
def test_no_picture_takes_a_gigabyte(side: int, tmp_path: Path):
    path = tmp_path / "picture.png"
    path.write_bytes(png(side, side, bytes(side * (side + 1))))
    assert path.stat().st_size < 2_000_000
    command = [sys.executable, "-c", PEAK, str(path)]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert re.search("too large", lines[0]) if side > 10_000 else lines[0] == "(3, 224, 224)"
    assert int(lines[1]) * 1024 < 1e9
