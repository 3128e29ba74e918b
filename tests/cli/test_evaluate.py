"""`nfnet-eqx evaluate`."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nfnet_eqx import Checkpoint, NFNet, NFNetConfig, Preprocess, from_pretrained, save_pretrained
from nfnet_eqx.cli import main
from nfnet_eqx.cli._text import width

PHOTOS = sorted((Path(__file__).resolve().parents[2] / "examples" / "images").glob("*.jpg"))[:3]
LABELS = ("bear", "cat", "dog")
CONFIG = NFNetConfig(
    depths=(1,),
    widths=(16,),
    stem_widths=(8,),
    stem_strides=(2,),
    stage_strides=(2,),
    group_size=8,
    num_classes=len(LABELS),
)


def save(folder: Path, labels: tuple[str, ...] | None = LABELS, **changes: Any) -> str:
    """A tiny checkpoint with random weights."""
    network = NFNet(NFNetConfig.from_dict(CONFIG.to_dict() | changes), key=jax.random.key(0))
    if network.head.fc is not None:  # a fresh one says nothing: its weights are tiny
        network = eqx.tree_at(lambda n: n.head.fc.weight, network, 100 * network.head.fc.weight)
    preprocess = Preprocess(input_size=(32, 32), crop_pct=1.0, crop_mode="squash")
    save_pretrained(Checkpoint(model=network, preprocess=preprocess, labels=labels, architecture="tiny"), folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("checkpoint"))


def cut_out(number: int) -> Image.Image:
    """A part of a photo, another one for each number."""
    with Image.open(PHOTOS[number % len(PHOTOS)]) as photo:
        left, top = 7 * number % 100, 11 * number % 100
        return photo.convert("RGB").crop((left, top, left + 60, top + 50))


def fill(folder: Path, names: tuple[str, ...] = LABELS, count: int = 13) -> Path:
    """Cut-outs, one folder a class, in turns."""
    for i in range(count):
        file = folder / "val" / names[i % len(names)] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cut_out(i).save(file)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("data"))


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """What the command prints as JSON."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What is said on stderr, in one line, when the command refuses its input."""
    assert main(["evaluate", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n") and err.count("\n") == 1, err
    return err


def test_the_json_holds_what_the_network_says_to_each_picture(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
):
    found = answer(capsys, model, "--data", data)
    ckpt = from_pretrained(model)
    run = eqx.filter_jit(lambda x: ckpt.model(x, inference=True))
    logits = [np.asarray(run(jnp.asarray(ckpt.preprocess(cut_out(i)))), np.float64) for i in range(13)]
    right = np.asarray([logits[i].argmax() == i % 3 for i in range(13)])
    losses = [np.log(np.exp(logits[i]).sum()) - logits[i][i % 3] for i in range(13)]
    assert (found["checkpoint"], found["split"], found["size"]) == (model, "validation", [32, 32])
    assert (found["pictures"], found["broken"]) == (13, 0)
    assert found["top1"]["value"] == pytest.approx(100 * right.mean(), abs=1e-9)
    assert found["top5"] == {"value": 100, "low": 100, "high": 100}
    assert found["loss"]["value"] == pytest.approx(np.mean(losses), abs=5e-6)
    assert found["loss"]["low"] < found["loss"]["value"] < found["loss"]["high"]
    assert [(c["label"], c["pictures"]) for c in found["classes"]] == [("bear", 5), ("cat", 4), ("dog", 4)]
    for label, entry in enumerate(found["classes"]):
        assert entry["top1"] == pytest.approx(100 * right[label::3].mean(), abs=1e-9)
    assert found["seconds"] >= 0


@pytest.mark.parametrize("batch_size", ["1", "5", "100"])
def test_a_batch_that_the_devices_do_not_divide_is_filled_up(
    batch_size: str, model: str, data: Path, capsys: pytest.CaptureFixture[str]
):
    found, expected = (
        answer(capsys, model, "--data", data, "--batch-size", batch_size),
        answer(capsys, model, "--data", data),
    )
    assert found["classes"] == expected["classes"]
    assert found["loss"]["value"] == pytest.approx(expected["loss"]["value"], abs=5e-6)


def test_the_tables_show_the_measures_and_the_worst_classes_first(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["evaluate", model, "--data", str(data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{model} at 32 x 32 on {data / 'val'}"
    assert lines[1].startswith("13 pictures, ")
    # Five guesses of three classes are right in any case.
    assert [line.split()[0] for line in lines[3:6]] == ["value", "top-1", "loss"]
    rows = [line.split() for line in lines[8:]]
    assert sorted(row[0] for row in rows) == list(LABELS)
    assert [float(row[2]) for row in rows] == sorted(float(row[2]) for row in rows)
    assert "nan" not in "\n".join(lines)


def test_of_many_classes_the_worst_twenty_are_listed_or_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = save(tmp_path / "model", None, num_classes=25)
    labels = np.arange(48) % 24
    images = np.stack([np.asarray(cut_out(i)) for i in range(48)])
    np.savez(tmp_path / "test.npz", images=images, labels=labels, classes=[f"class {i}" for i in range(25)])
    for flags, count in (((), 20), (("--per-class",), 24)):
        assert main(["evaluate", model, "--data", str(tmp_path), *flags]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[3:7]] == ["value", "top-1", "top-5", "loss"]
        assert sum(line.startswith("class ") and " % " in line for line in lines) == count
        assert lines[-1] == "classes without a picture here: 1"
        assert ("... and 4 classes that are no worse; --per-class lists them" in lines) is not flags


def test_broken_pictures_are_left_out_and_counted(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fill(tmp_path)
    for name in ("cat/01.png", "bear/12.png"):
        (tmp_path / "val" / name).write_bytes(b"no picture")
    found = answer(capsys, model, "--data", tmp_path)
    assert (found["pictures"], found["broken"]) == (11, 2)
    assert [c["pictures"] for c in found["classes"]] == [4, 3, 4]
    assert main(["evaluate", model, "--data", str(tmp_path)]) == 0
    assert "11 pictures, 2 broken, " in capsys.readouterr().out


def test_the_confusion_is_drawn_as_a_png(model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", model, "--data", str(data), "--confusion", str(tmp_path / "confusion.png")]) == 0
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG" and image.width > 300
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]


def test_another_size_is_another_size(model: str, data: Path, capsys: pytest.CaptureFixture[str]):
    found = answer(capsys, model, "--data", data, "--size", "48")
    assert found["size"] == [48, 48]
    assert found["loss"] != answer(capsys, model, "--data", data)["loss"]


# --- classes ---


def test_classes_of_the_same_names_are_matched_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sorted_, turned = save(tmp_path / "sorted"), save(tmp_path / "turned", ("dog", "bear", "cat"))
    data = fill(tmp_path / "data")
    found = answer(capsys, turned, "--data", data)
    assert [(c["label"], c["pictures"]) for c in found["classes"]] == [("dog", 4), ("bear", 5), ("cat", 4)]
    assert found["loss"] != answer(capsys, sorted_, "--data", data)["loss"]
    by_index = answer(capsys, turned, "--data", data, "--by-index")
    assert [(c["label"], c["pictures"]) for c in by_index["classes"]] == [("dog", 5), ("bear", 4), ("cat", 4)]
    assert by_index["loss"] == answer(capsys, sorted_, "--data", data)["loss"]


def test_classes_of_other_names_are_refused_unless_by_index(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = fill(tmp_path, ("n02132136", "n02123045", "n02084071"))
    message = refusal(capsys, model, "--data", data)
    assert "'n02084071' is none of the checkpoint's, whose first is 'bear'" in message and "--by-index" in message
    assert answer(capsys, model, "--data", data, "--by-index")["pictures"] == 13


def test_a_name_that_stands_for_two_classes_matches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = save(tmp_path / "model", ("cat", "dog", "cat"))
    images = np.stack([np.asarray(cut_out(i)) for i in range(6)])
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(6) % 3, classes=["dog", "cat", "dog"])
    assert "a name stands for several classes" in refusal(capsys, model, "--data", tmp_path)


def test_names_are_taken_from_whoever_knows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = save(tmp_path / "model", None)
    found = answer(capsys, model, "--data", fill(tmp_path / "data"))
    assert [c["label"] for c in found["classes"]] == list(LABELS)
    images = np.stack([np.asarray(cut_out(i)) for i in range(6)])
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(6) % 3)
    found = answer(capsys, model, "--data", tmp_path)
    assert [c["label"] for c in found["classes"]] == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_classes_is_refused(
    count: int, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = fill(tmp_path, ("bear", "cat", "dog", "eel")[:count])
    message = refusal(capsys, model, "--data", data)
    assert f"has 3 classes, {data / 'val'} {count};" in message
    if count < 3:
        assert answer(capsys, model, "--data", data, "--by-index")["pictures"] == 13
    else:
        assert "--by-index" not in message


def test_a_checkpoint_without_names_is_matched_by_the_order_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = save(tmp_path / "model", None)
    data = fill(tmp_path / "data", ("1", "10", "2"))
    assert "--by-index" in refusal(capsys, model, "--data", data)
    natural = answer(capsys, model, "--data", data, "--class-order", "natural")
    assert [(c["label"], c["pictures"]) for c in natural["classes"]] == [("1", 5), ("2", 4), ("10", 4)]
    as_text = answer(capsys, model, "--data", data, "--by-index")
    assert [c["label"] for c in as_text["classes"]] == ["1", "10", "2"]
    assert as_text["loss"] == answer(capsys, model, "--data", data, "--class-order", "index")["loss"] != natural["loss"]
    assert "leave out one" in refusal(capsys, model, "--data", data, "--by-index", "--class-order", "natural")


# --- input that cannot be used ---


def test_networks_without_classes_or_for_other_channels_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "has no classifier" in refusal(capsys, save(tmp_path / "a", None, num_classes=0), "--data", data)
    assert "takes 1 channels" in refusal(capsys, save(tmp_path / "b", in_channels=1), "--data", data)


@pytest.mark.parametrize("name", ["confusion.jpg", "missing/confusion.png", "folder.png"])
def test_a_confusion_that_cannot_be_written_is_refused_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "folder.png").mkdir()
    message = refusal(capsys, "no/such/model", "--data", "no/data", "--confusion", tmp_path / name)
    assert f"--confusion {tmp_path / name}: name a .png file" in message
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_the_confusion_never_replaces_a_picture(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = fill(tmp_path) / "val" / "cat" / "01.png"
    before = picture.read_bytes()
    assert "would be overwritten" in refusal(capsys, model, "--data", tmp_path, "--confusion", picture)
    assert picture.read_bytes() == before


def test_data_checkpoints_sizes_and_batches_that_do_not_exist_are_refused(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    confusion = ("--confusion", tmp_path / "confusion.png")
    assert "missing" in refusal(capsys, model, "--data", tmp_path / "missing", *confusion)
    assert "no/such/model" in refusal(capsys, "no/such/model", "--data", data, *confusion)
    assert "test_input_size" in refusal(capsys, model, "--data", data, "--size", "0", *confusion)
    assert "--batch-size 0" in refusal(capsys, model, "--data", data, "--batch-size", "0", *confusion)
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_are_all_broken_are_refused(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fill(tmp_path, count=3)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"no picture")
    message = refusal(capsys, model, "--data", tmp_path)
    assert "none of it can be read" in message


def test_names_that_a_terminal_would_obey_are_printed_without_their_teeth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = save(tmp_path / "model", None)
    data = fill(tmp_path / "data", ("\u202ered", "b", "c"))
    assert main(["evaluate", model, "--data", str(data)]) == 0
    shown = capsys.readouterr().out
    assert r"\u202ered" in shown and "\u202e" not in shown
    data = fill(tmp_path / "others", ("\x1b[31mred", "b", "c"))
    message = refusal(capsys, model, "--data", data)
    assert r"must be plain text, got '\x1b[31mred'" in message and "\x1b" not in message


def test_columns_of_wide_names_stand_below_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = ("日本語", "Lo\u0308we", "x" * 300)
    model, images = save(tmp_path / "model", None), np.stack([np.asarray(cut_out(i)) for i in range(6)])
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(6) % 3, classes=names)
    assert main(["evaluate", model, "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("class "))
    edges = {width(line[: line.index(" %")]) for line in lines[start + 1 : start + 4]}
    assert len(edges) == 1 and max(edges) < 110
