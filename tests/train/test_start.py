"""What a run starts from: an architecture, or a checkpoint with another head, at the sizes of the run."""

from collections.abc import Callable

import numpy as np
import pytest

import nfnet_eqx as nfx
from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Arrays
from nfnet_eqx.images._preprocess import Preprocess
from nfnet_eqx.train import TrainConfig
from nfnet_eqx.train._start import count_classes, find_start

Changed = Callable[..., TrainConfig]


def parameters(model: nfx.NFNet) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in nfx.named_parameters(model).items()}


def differing(a: nfx.NFNet, b: nfx.NFNet) -> set[str]:
    others = parameters(b)
    return {n for n, leaf in parameters(a).items() if leaf.shape != others[n].shape or np.any(leaf != others[n])}


@pytest.mark.parametrize("classes", [4, 7])
def test_a_checkpoint_gets_a_fresh_classifier_and_keeps_the_rest(config: TrainConfig, classes: int):
    ckpt = nfx.from_pretrained(config.model)
    start = find_start(config, classes)
    model = start.make()
    assert model.config == start.config and model.config.num_classes == classes
    assert differing(model, ckpt.model) <= {"head.fc.weight", "head.fc.bias"}
    assert "head.fc.weight" in differing(model, ckpt.model)
    assert (model.config.drop_rate, model.config.stochastic_depth) == (0.2, 0.25)
    assert start.base_model == config.model


def test_keep_head_keeps_it_and_refuses_another_number_of_classes(config: TrainConfig, changed: Changed):
    config = changed(config, keep_head=True)
    assert differing(find_start(config, 4).make(), nfx.from_pretrained(config.model).model) == set()
    with pytest.raises(InputError, match=r"keep_head: model .* has 4 classes, the data 7"):
        find_start(config, 7)


def test_fresh_takes_the_architecture_alone(config: TrainConfig, changed: Changed):
    start = find_start(changed(config, fresh=True), 4)
    assert "stem.conv.weight" in differing(start.make(), nfx.from_pretrained(config.model).model)
    assert start.base_model is None
    assert differing(start.make(), find_start(changed(config, fresh=True), 4).make()) == set()  # by the seed


def test_preprocessing_is_the_checkpoints_at_the_runs_sizes(config: TrainConfig, changed: Changed):
    start = find_start(changed(config, image_size=24, eval_size=32), 4)
    ckpt = nfx.from_pretrained(config.model)
    assert (start.preprocess.input_size, start.preprocess.test_input_size) == ((24, 24), (32, 32))
    assert (start.preprocess.mean, start.preprocess.crop_mode) == (ckpt.preprocess.mean, "squash")
    given = Preprocess(mean=(0.1, 0.2, 0.3))
    assert find_start(changed(config, preprocess=given), 4).preprocess.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(("name", "resize"), [("dm_nfnet_f0", "deepmind"), ("eca_nfnet_l0", "timm")])
def test_an_architecture_is_evaluated_as_it_was_published(config: TrainConfig, changed: Changed, name, resize):
    start = find_start(changed(config, model=name, image_size=192, eval_size=256), 10)
    assert start.preprocess.resize == resize and start.architecture == name


def test_data_of_different_classes_are_refused(config: TrainConfig):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    labels = np.arange(2)
    cats, dogs = (Arrays(images, labels, classes, "some") for classes in (["cat", "dog"], ["cat", "fox"]))
    assert count_classes(config, cats, cats) == 2
    with pytest.raises(InputError, match=r"do not have the same classes \(2 and 2\): dog, fox"):
        count_classes(config, cats, dogs)
