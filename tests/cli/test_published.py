"""`nfnet-eqx evaluate` on ImageNet's class folders, and with `--published`."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_eqx import Checkpoint, Preprocess, from_pretrained
from nfnet_eqx.cli import main
from nfnet_eqx.cli.evaluate import _published_lines
from nfnet_eqx.train import Comparison
from nfnet_eqx.zoo._catalog import find
from tests.zoo.repos import PUBLISHED_CONFIG, published

IMAGES = Path(__file__).resolve().parents[2] / "examples" / "images"
# Class folders in the order of their names, with their class and its pictures.
FOLDERS = {
    "n01818515": (88, "macaw", ["macaw"]),
    "n02106662": (235, "German shepherd", ["german_shepherd"]),
    "n02123045": (281, "tabby", ["tortoiseshell", "chelsea"]),
}
PICTURES = [(index, IMAGES / f"{name}.jpg") for index, _, names in FOLDERS.values() for name in sorted(names)]
CATALOGED = "test_nfnet.r160_in1k"


def save(folder: Path, **pretrained_cfg: Any) -> str:
    """The checkpoint as published, but for random weights and what is changed in its `pretrained_cfg`."""
    folder.mkdir()
    for name, content in published(folder).items():
        if name.endswith((".json", ".safetensors")):
            (folder / name).write_bytes(content)
    config = copy.deepcopy(PUBLISHED_CONFIG)
    config["pretrained_cfg"].update(pretrained_cfg)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("models") / "published")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of ImageNet's validation set, as far as its layout goes."""
    root = tmp_path_factory.mktemp("imagenet")
    for id_, (_, _, names) in FOLDERS.items():
        (root / "val" / id_).mkdir(parents=True)
        for name in names:
            (root / "val" / id_ / f"{name}.jpg").symlink_to(IMAGES / f"{name}.jpg")
    return root


@pytest.fixture(scope="module")
def by_hand(model: str) -> "ByHand":
    return ByHand(from_pretrained(model))


class ByHand:
    """The mean loss of the network on the pictures, one after the other."""

    def __init__(self, ckpt: Checkpoint) -> None:
        self.ckpt = ckpt
        self._run = eqx.filter_jit(lambda x: ckpt.model(x, inference=True))

    def loss(self, preprocess: Preprocess) -> float:
        losses = []
        for index, path in PICTURES:
            logits = np.asarray(self._run(jnp.asarray(preprocess(path))), np.float64)
            losses.append(logits.max() + np.log(np.exp(logits - logits.max()).sum()) - logits[index])
        return float(np.mean(losses))


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


# --- class folders ---


def test_a_part_of_imagenets_folders_is_matched_by_id(
    model: str, data: Path, by_hand: ByHand, capsys: pytest.CaptureFixture[str]
):
    found = answer(capsys, model, "--data", data)
    seen = {i: (c["label"], c["pictures"]) for i, c in enumerate(found["classes"]) if c["pictures"]}
    assert seen == {index: (label, len(names)) for index, label, names in FOLDERS.values()}
    assert found["loss"]["value"] == pytest.approx(by_hand.loss(by_hand.ckpt.preprocess), rel=1e-5)
    assert "published" not in found


def test_by_index_still_takes_them_for_the_first_classes(model: str, data: Path, capsys: pytest.CaptureFixture[str]):
    found = answer(capsys, model, "--data", data, "--by-index")
    assert [c["pictures"] for c in found["classes"][:4]] == [1, 1, 2, 0]


def test_a_folder_that_is_no_class_of_imagenet_is_named(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for id_ in (*FOLDERS, "n02084071"):  # "dog" is a synset, but no class
        (tmp_path / "val" / id_).mkdir(parents=True)
        (tmp_path / "val" / id_ / "a.jpg").symlink_to(IMAGES / "boats.jpg")
    message = refusal(capsys, model, "--data", tmp_path)
    assert "('n02084071' is none of the checkpoint's, whose first is 'n01440764'); take that folder out" in message


def test_a_network_for_other_classes_knows_no_ids(data: Path, capsys: pytest.CaptureFixture[str]):
    message = refusal(capsys, "nfnet_cifar10", "--data", data)
    assert f"nfnet_cifar10 has 10 classes, {data / 'val'} 3;" in message


# --- the published protocol ---


def test_the_preprocessing_is_the_catalogs_whatever_the_checkpoint_says(
    data: Path, by_hand: ByHand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    changed = {"test_input_size": [3, 96, 96], "crop_pct": 0.5, "mean": [0, 0, 0], "crop_mode": "squash"}
    model = save(tmp_path / "changed", **changed)
    accuracy = find(CATALOGED).accuracy()
    assert (accuracy.size, accuracy.crop_pct, accuracy.crop_mode, accuracy.mean) == (160, 0.95, "center", (0.5,) * 3)

    found = answer(capsys, model, "--data", data, "--published")
    assert found["size"] == [160, 160]
    assert found["loss"]["value"] == pytest.approx(by_hand.loss(accuracy.preprocess()), rel=1e-5)
    assert found["published"] == {
        "name": CATALOGED,
        **json.loads(json.dumps(dataclasses.asdict(accuracy))),
        "numerics": {"published": "timm", "measured": "timm"},
        "not_comparable": "these are 4 pictures of 3 classes; the figure is for ImageNet-1k's 50,000 of 1,000",
        "difference": None,
        "in_interval": None,
    }
    other = answer(capsys, model, "--data", data)
    assert other["size"] == [96, 96] and other["loss"] != found["loss"]


def test_pictures_that_are_not_imagenets_are_no_test_of_the_figure(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["evaluate", model, "--data", str(data), "--published", "--size", "160"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{model} at 160 x 160 on {data / 'val'}"
    start = lines.index(f"published top-1 of {CATALOGED} at 160: 47.634 %, timm, results-imagenet.csv")
    assert lines[start - 2].startswith("loss ") and lines[start - 1] == lines[start + 2] == ""
    reason = "these are 4 pictures of 3 classes; the figure is for ImageNet-1k's 50,000 of 1,000"
    assert lines[start + 1] == f"cannot be compared: {reason}"


def test_a_comparison_is_told_in_words():
    accuracy = find(CATALOGED).accuracy()
    same = Comparison(
        name=CATALOGED,
        accuracy=accuracy,
        published_numerics="timm",
        numerics="timm",
        not_comparable=None,
        difference=47.64 - 47.634,
        in_interval=True,
    )
    assert _published_lines(same)[1:] == ["measured minus published: +0.006 %, inside the interval"]
    worse = dataclasses.replace(same, difference=46 - 47.634, in_interval=False, numerics="deepmind")
    assert _published_lines(worse)[1:] == [
        "measured minus published: -1.634 %, outside the interval",
        "published for the numerics 'timm', measured with 'deepmind'",
    ]


def test_refusals_are_one_line_before_the_work(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    untagged = save(tmp_path / "untagged", tag=None)
    assert f"{untagged} is none of the published checkpoints" in refusal(
        capsys, untagged, "--data", data, "--published"
    )
    message = refusal(capsys, model, "--data", data, "--published", "--size", "224")
    assert f"size 224: no accuracy of {CATALOGED} is published for it; take 160" in message
