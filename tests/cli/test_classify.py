"""`nfnet-eqx classify`."""

import json
import shutil
import struct
import zlib
from pathlib import Path

import jax
import pytest
from PIL import Image

from nfnet_eqx import Checkpoint, NFNet, NFNetConfig, Preprocess, save_pretrained
from nfnet_eqx.cli import main

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "images"
CHELSEA = PHOTOS / "chelsea.jpg"
LABELS = ("cat", "dog", "frog")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny checkpoint with random weights."""
    config = NFNetConfig(
        depths=(1,),
        widths=(16,),
        stem_widths=(8,),
        stem_strides=(2,),
        stage_strides=(2,),
        group_size=8,
        num_classes=len(LABELS),
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    network = NFNet(config, key=jax.random.key(0))
    preprocess = Preprocess(input_size=(32, 32), crop_pct=1.0, crop_mode="squash")
    save_pretrained(Checkpoint(model=network, preprocess=preprocess, labels=LABELS, architecture="tiny"), folder)
    return str(folder)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What is said on stderr, in one line, when the command refuses its input."""
    assert main(["classify", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err


def test_the_table_names_each_picture_once_and_its_classes(model: str, capsys: pytest.CaptureFixture[str]):
    assert main(["classify", str(CHELSEA), str(PHOTOS / "moose.jpg"), "--model", model, "--top", "2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [len(line) for line in lines] == [4, 3, 4, 3]
    assert [lines[0][0], lines[2][0]] == ["chelsea.jpg", "moose.jpg"]
    assert all(line[-3] in LABELS and line[-1] == "%" for line in lines)
    assert float(lines[0][-2]) >= float(lines[1][-2])


def test_the_json_of_a_folder_holds_every_picture_in_it(model: str, capsys: pytest.CaptureFixture[str]):
    assert main(["classify", str(PHOTOS), "--model", model, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == model
    assert [entry["image"] for entry in answer["pictures"]] == [str(path) for path in sorted(PHOTOS.glob("*.jpg"))]
    for entry in answer["pictures"]:
        assert {best["label"] for best in entry["classes"]} == set(LABELS)
        assert sum(best["probability"] for best in entry["classes"]) == pytest.approx(1, abs=1e-6)


def test_the_sheet_is_saved_as_a_png(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"something older")
    assert main(["classify", str(PHOTOS), "--model", model, "--save", str(sheet)]) == 0
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        assert image.width > 1000
    assert list(tmp_path.iterdir()) == [sheet]


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD = {
    "empty.jpg": b"",
    "text.jpg": b"this is not a photo\n",
    "truncated.jpg": CHELSEA.read_bytes()[:9_000],
    "bomb.png": bomb(),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_named_and_nothing_is_written(
    name: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / name).write_bytes(BAD[name])
    message = refusal(capsys, CHELSEA, tmp_path / name, "--model", model, "--save", tmp_path / "sheet.png")
    assert str(tmp_path / name) in message
    assert str(CHELSEA) not in message
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_all_bad_pictures_of_a_folder_are_named_in_one_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, data in BAD.items():
        (tmp_path / name).write_bytes(data)
    shutil.copy(CHELSEA, tmp_path)
    message = refusal(capsys, tmp_path, "--model", model)
    assert all(str(tmp_path / name) in message for name in BAD)
    assert "chelsea" not in message


def test_a_bad_picture_is_found_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty.jpg").touch()
    assert "empty.jpg: is empty" in refusal(capsys, tmp_path / "empty.jpg", "--model", tmp_path / "no-model")


def test_a_folder_without_pictures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "notes.txt").write_text("no picture")
    assert "no picture in this folder" in refusal(capsys, tmp_path)


def test_pictures_and_model_that_do_not_exist_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "no picture given" in refusal(capsys)
    assert "missing.jpg: cannot be opened" in refusal(capsys, tmp_path / "missing.jpg")
    assert "no/such/model" in refusal(capsys, CHELSEA, "--model", "no/such/model")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("sheet.jpg", "end its name in .png"), ("missing/sheet.png", "existing folder"), (".png", "end its name in .png")],
)
def test_a_sheet_that_cannot_be_saved_is_refused_before_the_work(
    name: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert reason in refusal(capsys, CHELSEA, "--model", "no/such/model", "--save", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_sheet_never_replaces_one_of_the_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "photo.png"
    with Image.open(CHELSEA) as photo:
        photo.save(picture)
    before = picture.read_bytes()
    assert "would be overwritten" in refusal(capsys, picture, "--save", picture)
    assert picture.read_bytes() == before


def test_a_name_that_a_terminal_would_obey_is_printed_without_its_teeth(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(CHELSEA, tmp_path / "\x1b[31mred\udcff.jpg")
    assert main(["classify", str(tmp_path), "--model", model, "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith("?[31mred?.jpg  ")


def test_less_than_one_class_is_refused(model: str, capsys: pytest.CaptureFixture[str]):
    assert "top (=0)" in refusal(capsys, CHELSEA, "--model", model, "--top", "0")
