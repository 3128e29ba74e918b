"""What a run starts from: an architecture, or a checkpoint with another head, at the sizes of the run."""

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest

import nfnet_eqx as nfx
from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Arrays
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import NFNet, named_parameters
from nfnet_eqx.train import TrainConfig, make_mesh, make_program
from nfnet_eqx.train._start import count_classes, find_start, relabelled
from tests.train.tiny import TINY

Changed = Callable[..., TrainConfig]


def parameters(model: nfx.NFNet) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in nfx.named_parameters(model).items()}


def differing(a: nfx.NFNet, b: nfx.NFNet) -> set[str]:
    others = parameters(b)
    return {n for n, leaf in parameters(a).items() if leaf.shape != others[n].shape or np.any(leaf != others[n])}


@pytest.mark.parametrize("classes", [4, 7])
def test_a_checkpoint_gets_a_fresh_classifier_and_keeps_the_rest(config: TrainConfig, classes: int):
    ckpt = nfx.from_pretrained(config.model)
    start, model = find_start(config, classes)
    assert model is not None and model.config == start.config and model.config.num_classes == classes
    assert differing(model, ckpt.model) <= {"head.fc.weight", "head.fc.bias"}
    assert "head.fc.weight" in differing(model, ckpt.model)
    assert (model.config.drop_rate, model.config.stochastic_depth) == (0.2, 0.25)
    assert start.base_model == config.model


LABELS = ("boats", "chelsea", "german_shepherd", "horses")  # the tiny checkpoint's


def test_keep_head_keeps_it_and_refuses_another_number_of_classes(config: TrainConfig, changed: Changed):
    config = changed(config, keep_head=True)
    start, model = find_start(config, 4)
    assert model is not None and differing(model, nfx.from_pretrained(config.model).model) == set()
    assert (start.labels, start.classes) == (LABELS, (0, 1, 2, 3))
    with pytest.raises(InputError, match=r"keep_head: model .* has 4 classes, the data 7"):
        find_start(config, 7)
    with pytest.raises(InputError, match=r"keep_head: model \(=eca_nfnet_l0\) is an architecture"):
        find_start(changed(config, model="eca_nfnet_l0"), 4)


def test_keep_head_finds_the_datas_classes_among_the_checkpoints_by_name(config: TrainConfig, changed: Changed):
    config = changed(config, keep_head=True)
    names = ("horses", "boats", "german_shepherd", "chelsea")
    start, _ = find_start(config, 4, names)
    assert (start.labels, start.classes) == (LABELS, (3, 0, 2, 1))
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    source = relabelled(Arrays(images, np.arange(4), names, "some"), start)
    assert [(source[i].image[0, 0, 0], LABELS[source[i].label]) for i in range(4)] == list(enumerate(names))
    assert (len(source), source.num_classes, source.name) == (4, 4, "some")
    pickle.loads(pickle.dumps(source))  # for worker processes
    with pytest.raises(InputError, match="'cows' is none of the checkpoint's"):
        find_start(config, 4, ("cows", "boats", "german_shepherd", "chelsea"))


def test_without_names_on_one_side_the_order_is_as_given_and_a_doubtful_one_is_refused(
    config: TrainConfig, changed: Changed, tmp_path: Path
):
    unnamed = dataclasses.replace(nfx.from_pretrained(config.model), labels=None)
    nfx.save_pretrained(unnamed, tmp_path / "unnamed")
    config = changed(config, model=str(tmp_path / "unnamed"), keep_head=True)
    names = ("1", "10", "2", "3")
    with pytest.raises(InputError, match="two orders"):
        find_start(config, 4, names)
    by_index, _ = find_start(changed(config, class_order="index"), 4, names)
    natural, _ = find_start(changed(config, class_order="natural"), 4, names)
    assert (by_index.labels, by_index.classes) == (names, (0, 1, 2, 3))
    assert (natural.labels, natural.classes) == (("1", "2", "3", "10"), (0, 3, 1, 2))


def test_a_configuration_starts_from_random_parameters_by_the_seed(config: TrainConfig, changed: Changed):
    config = changed(config, model=dataclasses.replace(TINY, num_classes=1000))
    start, model = find_start(config, 4)
    assert model is None and start.base_model is None and start.config.num_classes == 4
    with pytest.raises(InputError, match="has no sizes of its own"):
        find_start(changed(config, eval_size=None), 4)


@pytest.mark.parametrize("fsdp", [False, True])
def test_random_parameters_are_the_networks_own_of_the_seed_wherever_they_are_made(
    config: TrainConfig, changed: Changed, fsdp: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nfnet_eqx.train._mesh._SMALLEST_SHARDED", 16)
    config = changed(config, model=TINY, fsdp=fsdp, seed=5)
    start, _ = find_start(config, 4)
    mesh = make_mesh()
    state = make_program(config, start.config, start.preprocess, mesh, total_steps=10).start(None)
    made = named_parameters(state.params)
    assert any(not leaf.sharding.is_fully_replicated for leaf in made.values()) == fsdp
    for name, leaf in named_parameters(eqx.filter_jit(NFNet)(start.config, key=jr.key(5))).items():
        np.testing.assert_array_equal(np.asarray(made[name]), np.asarray(leaf), err_msg=name)


def test_sizes_that_are_not_given_are_the_checkpoints_or_the_architectures_own(config: TrainConfig, changed: Changed):
    start, _ = find_start(changed(config, image_size=None, eval_size=None), 4)
    assert (start.preprocess.input_size, start.preprocess.test_input_size) == ((16, 16), (16, 16))
    start, _ = find_start(changed(config, model="dm_nfnet_f1", image_size=None, eval_size=None), 4)
    assert (start.preprocess.input_size, start.preprocess.test_input_size) == ((224, 224), (320, 320))


def test_preprocessing_is_the_checkpoints_at_the_runs_sizes(config: TrainConfig, changed: Changed):
    start, _ = find_start(changed(config, image_size=24, eval_size=32), 4)
    ckpt = nfx.from_pretrained(config.model)
    assert (start.preprocess.input_size, start.preprocess.test_input_size) == ((24, 24), (32, 32))
    assert (start.preprocess.mean, start.preprocess.crop_mode) == (ckpt.preprocess.mean, "squash")
    given = Preprocess(mean=(0.1, 0.2, 0.3))
    assert find_start(changed(config, preprocess=given), 4)[0].preprocess.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(("name", "resize"), [("dm_nfnet_f0", "deepmind"), ("eca_nfnet_l0", "timm")])
def test_an_architecture_is_evaluated_as_it_was_published(config: TrainConfig, changed: Changed, name, resize):
    start, _ = find_start(changed(config, model=name, image_size=192, eval_size=256), 10)
    assert start.preprocess.resize == resize and start.architecture == name


def test_data_of_different_classes_are_refused(config: TrainConfig):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    labels = np.arange(2)
    cats, dogs = (Arrays(images, labels, classes, "some") for classes in (["cat", "dog"], ["cat", "fox"]))
    assert count_classes(config, cats, cats) == 2
    with pytest.raises(InputError, match=r"do not have the same classes \(2 and 2\): dog, fox"):
        count_classes(config, cats, dogs)
