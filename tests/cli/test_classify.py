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
from nfnet_eqx.checkpoints import Prediction
from nfnet_eqx.cli import main
from nfnet_eqx.cli._text import width
from nfnet_eqx.cli.classify import _as_json, _as_table
from nfnet_eqx.images import _open

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


def test_a_bad_picture_that_only_decoding_shows_does_not_hide_the_others(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "half.jpg").write_bytes(BAD["truncated.jpg"])
    Image.new("L", (60_000, 1)).save(tmp_path / "thread.png")
    Image.new("L", (2, 2)).save(tmp_path / "good.png")
    centre = tmp_path / "centre"
    shutil.copytree(model, centre)
    config = json.loads((centre / "config.json").read_text())
    config["pretrained_cfg"] |= {"crop_mode": "center", "input_size": [3, 64, 64]}
    (centre / "config.json").write_text(json.dumps(config))
    message = refusal(capsys, *sorted(tmp_path.glob("*.*g")), "--model", centre)
    assert f"{tmp_path / 'half.jpg'}: is damaged" in message
    assert f"{tmp_path / 'thread.png'}: " in message
    assert "too long and thin" in message
    assert "good.png" not in message


def test_each_picture_is_decoded_once(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    decoded = []

    def counting(file, name, **options):
        decoded.append(name)
        return decode_file(file, name, **options)

    decode_file = _open.decode_file
    monkeypatch.setattr(_open, "decode_file", counting)
    assert main(["classify", str(PHOTOS), "--model", model, "--save", str(tmp_path / "sheet.png")]) == 0
    assert decoded == [str(path) for path in sorted(PHOTOS.glob("*.jpg"))]


def test_a_photo_of_a_phone_is_classified_and_drawn_upright(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    exif = Image.Exif()
    exif[0x0112] = 6
    sheets = []
    tables = []
    with Image.open(CHELSEA) as photo:
        photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
        photo.save(tmp_path / "upright.png")
    for name in ("lying.png", "upright.png"):
        picture = (tmp_path / name).rename(tmp_path / "photo.png")
        assert main(["classify", str(picture), "--model", model, "--save", str(tmp_path / "sheet.png")]) == 0
        tables.append(capsys.readouterr().out)
        sheets.append((tmp_path / "sheet.png").read_bytes())
    assert tables[0] == tables[1]
    assert sheets[0] == sheets[1]


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
    assert capsys.readouterr().out.startswith(r"\x1b[31mred\udcff.jpg  ")


def test_less_than_one_class_is_refused(model: str, capsys: pytest.CaptureFixture[str]):
    assert "top (=0)" in refusal(capsys, CHELSEA, "--model", model, "--top", "0")


STRANGE = [
    "cat",
    "日本語の猫",
    "Vo\u0308gel",
    "\u202egpj.exe",
    "a\u2028b",
    "zero\u200bwidth",
    "\x1b[2J",
    "\ud800",
    "x" * 7_000_000,
]


def test_columns_stand_below_each_other_whatever_the_labels_and_names_are():
    predictions = [[Prediction(label, 0.5) for label in STRANGE]] * 2
    lines = _as_table([Path("日本.jpg"), Path("ab\udcff\u202e.jpg")], predictions).splitlines()
    assert len(lines) == 2 * len(STRANGE)
    assert len({width(line) for line in lines}) == 1
    assert all(line.isprintable() and line.endswith("50.00 %") for line in lines)
    assert len(lines[0]) < 200, "a label of megabytes is cut"


def test_the_json_holds_labels_unchanged_in_plain_ascii():
    text = _as_json("model", [Path("日本.jpg")], [[Prediction(label, 0.5) for label in STRANGE]])
    assert text.isascii() and "\x1b" not in text
    assert [entry["label"] for entry in json.loads(text)["pictures"][0]["classes"]] == STRANGE


@pytest.mark.parametrize(("file", "boxes"), [("Vögel – Птицы.png", ""), ("日本語.png", "日本語")])
def test_what_the_sheet_cannot_write_is_said(
    file: str, boxes: str, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    Image.new("RGB", (8, 8)).save(tmp_path / file)
    assert main(["classify", str(tmp_path / file), "--model", model, "--save", str(tmp_path / "sheet.png")]) == 0
    said = [record.getMessage() for record in caplog.records if "boxes" in record.getMessage()]
    assert [message.endswith(f"no glyphs for {boxes}") for message in said] == ([True] if boxes else [])


def test_a_checkpoint_where_images_belong_is_told_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text("{}")
    assert main(["classify", str(tmp_path)]) == 2
    assert "is a checkpoint, not a folder of images; give it as --model" in capsys.readouterr().err
