"""Data sets in their real formats, of a few photos."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PHOTOS = sorted((Path(__file__).resolve().parents[2] / "examples" / "images").glob("*.jpg"))


@pytest.fixture(scope="session")
def jpegs() -> list[bytes]:
    """Eight photos, 96 pixels wide, as JPEG files."""
    return [jpeg(Image.open(path).convert("RGB").resize((96, 72))) for path in PHOTOS]


def jpeg(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture
def class_folder(tmp_path: Path, jpegs: list[bytes]) -> Path:
    """Eight photos in three class folders: a0 a1 a2, b0 b1 b2, c0 c1."""
    folder = tmp_path / "pictures"
    for index, data in enumerate(jpegs):
        name = f"{'abc'[index // 3]}/{index % 3}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def write_tar(jpegs: list[bytes]) -> Callable[..., Path]:
    """Writes a webdataset tar of the photos, labels 0 1 2 0 1 2 ..., or of the members that are given."""

    def write(path: Path, members: dict[str, bytes] | None = None) -> Path:
        if members is None:
            members = {}
            for index, data in enumerate(jpegs):
                members |= {f"photo_{index}.cls": str(index % 3).encode(), f"photo_{index}.jpg": data}
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def numbered() -> tuple[np.ndarray, np.ndarray]:
    """Twenty pictures of 8 x 8 whose every pixel is their number, as are their labels."""
    labels = np.arange(20)
    return np.tile(labels.astype(np.uint8)[:, None, None, None], (1, 8, 8, 3)), labels
