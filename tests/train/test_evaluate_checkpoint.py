"""A checkpoint on a data set, from Python: what the command does, and nothing printed."""

import dataclasses
import doctest
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfnet_eqx import Checkpoint, InputError, from_pretrained
from nfnet_eqx.cli import main
from nfnet_eqx.data import Arrays, Source
from nfnet_eqx.train import _evaluate_checkpoint, evaluate, evaluate_checkpoint
from nfnet_eqx.train._mesh import make_mesh
from tests.train.test_evaluate import batches, network, pictures


@pytest.fixture(scope="module")
def ckpt() -> Checkpoint:
    return from_pretrained("nfnet_cifar10")


IMAGES, LABELS = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8), np.arange(12) % 3


def classes(ckpt: Checkpoint) -> tuple[str, ...]:
    """In another order than the checkpoint's; the data has images of the first three."""
    assert ckpt.labels is not None
    return ckpt.labels[::-1]


@pytest.fixture(scope="module")
def source(ckpt: Checkpoint) -> Source:
    return Arrays(IMAGES, LABELS, classes(ckpt))


def test_it_is_what_the_command_says(ckpt: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.savez(tmp_path / "test.npz", images=IMAGES, labels=LABELS, classes=list(classes(ckpt)))
    found = evaluate_checkpoint(ckpt, tmp_path)
    assert capsys.readouterr() == ("", ""), "only the command prints"
    assert main(["evaluate", "nfnet_cifar10", "--data", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["top1"]["value"], said["loss"]["value"]) == (found.evaluation.top1, found.evaluation.loss)
    assert [c["pictures"] for c in said["classes"]] == [result.images for result in found.per_class]
    assert (said["checkpoint"], said["data"]) == (str(found.checkpoint.source), found.data)


def test_classes_are_matched_by_name_or_as_they_are_numbered(ckpt: Checkpoint, source: Source):
    by_name = evaluate_checkpoint(ckpt, source)
    assert [result.images for result in by_name.per_class] == [0] * 7 + [4] * 3
    by_index = evaluate_checkpoint(ckpt, source, class_order="index")
    assert [result.images for result in by_index.per_class] == [4] * 3 + [0] * 7
    assert by_name.labels == by_index.labels == ckpt.labels


def test_each_class_is_told_with_what_it_is_taken_for(ckpt: Checkpoint, source: Source):
    found = evaluate_checkpoint(ckpt, source)
    for i, result in enumerate(found.per_class):
        row = found.evaluation.confusion[i].copy()
        assert result.top1 == (None if row.sum() == 0 else pytest.approx(100 * row[i] / row.sum()))
        row[i] = 0
        assert result.mistaken == row.max()
        assert result.mistaken_for is None if row.max() == 0 else row[found.labels.index(str(result.mistaken_for))]


def test_another_size_is_another_preprocessing(ckpt: Checkpoint, source: Source):
    found = evaluate_checkpoint(ckpt, source, size=48)
    assert found.checkpoint.preprocess.size(use_test_size=True) == (48, 48)
    assert found.evaluation.loss != evaluate_checkpoint(ckpt, source).evaluation.loss


def test_the_published_accuracy_is_measured_as_it_was_published(ckpt: Checkpoint, source: Source):
    changed = dataclasses.replace(ckpt, preprocess=dataclasses.replace(ckpt.preprocess, crop_pct=0.5))
    found = evaluate_checkpoint(changed, source, published=True)
    assert found.checkpoint.preprocess == ckpt.preprocess
    assert found.published is not None and found.published.difference is None
    assert "these are 12 pictures of 10 classes" in str(found.published.not_comparable)
    with pytest.raises(InputError, match="size 64: no accuracy of nfnet_cifar10"):
        evaluate_checkpoint(ckpt, source, published=True, size=64)


def test_photos_are_turned_upright_but_not_for_a_published_accuracy(ckpt: Checkpoint, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown turned by 90 degrees clockwise
    for i, label in enumerate(classes(ckpt)):
        for folder, how in (("tagged", {"exif": exif}), ("upright", {}), ("as it lies", {})):
            image = Image.fromarray(IMAGES[i])
            file = tmp_path / folder / label / "a.png"
            file.parent.mkdir(parents=True)
            (image.transpose(Image.Transpose.ROTATE_270) if folder == "upright" else image).save(file, **how)

    def loss(folder: str, *, published: bool) -> float:
        return evaluate_checkpoint(ckpt, tmp_path / folder, published=published).evaluation.loss

    assert loss("tagged", published=False) == loss("upright", published=False) != loss("as it lies", published=False)
    assert loss("tagged", published=True) == loss("as it lies", published=True)


def test_what_cannot_be_evaluated_is_refused(ckpt: Checkpoint, source: Source):
    with pytest.raises(InputError, match="has no classifier; fine-tune it"):
        evaluate_checkpoint(from_pretrained("nfnet_cifar10", num_classes=0), source)
    with pytest.raises(InputError, match="takes 1 channels; an image has 3"):
        evaluate_checkpoint(from_pretrained("nfnet_cifar10", in_channels=1), source)
    with pytest.raises(InputError, match="batch_size .=0. must be positive"):
        evaluate_checkpoint(ckpt, source, batch_size=0)
    with pytest.raises(InputError, match="nowhere: does not exist"):
        evaluate_checkpoint(ckpt, "nowhere")


def test_without_a_mesh_all_devices_are_used():
    images, labels = pictures()
    found = evaluate(network(), batches(images, labels, 8))
    expected = evaluate(network(), batches(images, labels, 8), mesh=make_mesh())
    np.testing.assert_array_equal(found.losses, expected.losses)


def test_the_example_of_the_docstring_holds():
    assert doctest.testmod(_evaluate_checkpoint).failed == 0
