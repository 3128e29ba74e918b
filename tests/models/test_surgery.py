"""New heads, other input channels, masks by name: what is meant changes, and nothing else."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

import nfnet_eqx as nfx
from nfnet_eqx.models._names import named_parameters


@pytest.fixture
def model(tiny, trained) -> nfx.NFNet:
    return trained(dataclasses.replace(tiny["dm_nfnet"], drop_rate=0.2, stochastic_depth=0.1))


def same(a: nfx.NFNet, b: nfx.NFNet, *, but: tuple[str, ...]) -> None:
    ours, theirs = named_parameters(a), named_parameters(b)
    for name in ours:
        if name not in but:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_a_new_head_has_the_wanted_classes_and_leaves_the_rest(model):
    other = nfx.replace_head(model, 4, key=jax.random.key(0))
    assert other.config == dataclasses.replace(model.config, num_classes=4)
    assert other(jnp.zeros((3, 32, 32)), inference=True).shape == (4,)
    same(other, model, but=("head.fc.weight", "head.fc.bias"))


def test_a_head_of_no_classes_leaves_the_pooled_features(model):
    other = nfx.replace_head(model, 0, key=jax.random.key(0))
    assert other(jnp.zeros((3, 32, 32)), inference=True).shape == (model.config.feature_width,)


def test_a_network_set_to_inference_stays_so(model):
    quiet = eqx.nn.inference_mode(model)
    image = jnp.ones((3, 32, 32))
    nfx.replace_head(quiet, 4, key=jax.random.key(0))(image)  # would ask for a key in training
    nfx.replace_in_channels(quiet, 1)(image[:1])


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 7])
def test_other_channels_follow_timms_rule(model, channels):
    other = nfx.replace_in_channels(model, channels)
    before, after = np.asarray(model.stem["conv1"].weight), np.asarray(other.stem["conv1"].weight)
    if channels == 1:
        expected = before.sum(axis=1, keepdims=True)
    else:
        expected = np.stack([before[:, i % 3] for i in range(channels)], axis=1) * (3 / channels)
    np.testing.assert_allclose(after, expected, rtol=1e-6, atol=1e-7)
    assert other(jnp.zeros((channels, 32, 32)), inference=True).shape == (10,)
    same(other, model, but=("stem.conv1.weight",))


@pytest.mark.parametrize("old", [1, 2, 4, 6, 13])
@pytest.mark.parametrize("new", [1, 3, 6])
def test_the_rule_is_the_same_from_any_number_of_channels(tiny, trained, old: int, new: int, monkeypatch):
    model = trained(dataclasses.replace(tiny["nfnet"], in_channels=old))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no check of types
    other = nfx.replace_in_channels(model, np.int64(new))  # pyright: ignore[reportArgumentType]
    assert other.config == dataclasses.replace(model.config, in_channels=new)
    before, after = np.asarray(model.stem["conv1"].weight), np.asarray(other.stem["conv1"].weight)
    if new == 1:
        expected = before.sum(axis=1, keepdims=True)
    else:
        expected = np.stack([before[:, i % old] for i in range(new)], axis=1) * (old / new)
    np.testing.assert_allclose(after, expected, rtol=1e-6, atol=1e-6)
    if new % old == 0 or new == 1:
        # Equal channels, or whole repetitions of the old ones, are seen as before.
        np.testing.assert_allclose(after.sum(axis=1), before.sum(axis=1), rtol=0, atol=1e-5)
    same(other, model, but=("stem.conv1.weight",))


def test_the_number_of_channels_there_already_changes_nothing(model):
    same(nfx.replace_in_channels(model, 3), model, but=())


def test_a_mask_splits_a_network_into_trained_and_frozen_parts(model):
    mask = nfx.parameter_mask(model, lambda name: name.startswith("head."))
    trained, frozen = eqx.partition(model, mask)
    assert list(named_parameters(trained)) == ["head.fc.weight", "head.fc.bias"]
    assert set(named_parameters(trained)) | set(named_parameters(frozen)) == set(named_parameters(model))


def test_a_mask_serves_optax(model):
    params = eqx.filter(model, eqx.is_inexact_array)
    decay = optax.add_decayed_weights(
        0.5, lambda params: nfx.parameter_mask(params, lambda name: name.endswith(".weight"))
    )
    updates, _ = decay.update(jax.tree.map(jnp.zeros_like, params), decay.init(params), params)
    for name, update in named_parameters(updates).items():
        expected = 0.5 * named_parameters(params)[name] if name.endswith(".weight") else 0
        np.testing.assert_array_equal(update, jnp.broadcast_to(expected, update.shape), err_msg=name)
