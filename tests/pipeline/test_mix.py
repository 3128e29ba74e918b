"""MixUp and CutMix: what is mixed with what, by which shares, and that the devices need not talk."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import mix

SIZE = 16

mixed_by = jax.jit(mix, static_argnames=("mixup", "cutmix"))


def batch(number: int = 64, dtype: str = "float32") -> tuple[jax.Array, jax.Array, jax.Array]:
    """Picture i has the value i everywhere and the class i: what comes out tells what went in."""
    images = jnp.broadcast_to(jnp.arange(number, dtype=dtype)[:, None, None, None], (number, SIZE, SIZE, 3))
    return images, jnp.eye(number), jr.split(jr.key(0), number)


def neighbours(number: int) -> np.ndarray:
    return np.arange(number) ^ 1


def own_shares(images: jax.Array) -> np.ndarray:
    """The picture's own part in each of its pixels, from the mixed values."""
    own = np.arange(len(images))
    other = neighbours(len(images))
    pixels = np.asarray(images)[..., 0]
    return (pixels - other[:, None, None]) / (own - other)[:, None, None]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, False), (0.0, True), (0.2, True)])
def test_pictures_and_labels_are_mixed_with_the_neighbour_by_one_share(mixup: float, cutmix: bool):
    images, labels, keys = batch()
    mixed, targets = mixed_by(images, labels, keys, mixup=mixup, cutmix=cutmix)
    share = own_shares(mixed)
    assert (share > -1e-5).all() and (share < 1 + 1e-5).all()
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)
    rows = np.arange(64)
    np.testing.assert_allclose(np.asarray(targets)[rows, rows], share.mean((1, 2)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(targets)[rows, rows ^ 1], 1 - share.mean((1, 2)), rtol=0, atol=1e-5)
    flat = share.std((1, 2)) < 1e-5
    if not cutmix:
        assert flat.all(), "MixUp mixes all pixels by the same share"
    if not mixup:
        assert np.isclose(share, np.round(share), atol=1e-5).all(), "CutMix takes a pixel from one picture"


def test_a_cutmix_box_is_a_box_of_the_neighbour():
    images, labels, keys = batch()
    mixed, _ = mixed_by(images, labels, keys, mixup=0.0, cutmix=True)
    for outside in np.round(own_shares(mixed)).astype(bool):
        rows, columns = np.nonzero(~outside)
        if len(rows):
            box = np.zeros_like(outside)
            box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
            np.testing.assert_array_equal(~outside, box)


def test_the_shares_have_the_published_distributions():
    number = 3000
    images = jnp.zeros((number, SIZE, SIZE, 1))
    labels = jax.nn.one_hot(jnp.arange(number) % 2, 2)
    keys = jr.split(jr.key(1), number)
    own = np.arange(number) % 2
    _, targets = mixed_by(images, labels, keys, mixup=0.2, cutmix=False)
    share = np.asarray(targets)[np.arange(number), own]
    assert abs(share.mean() - 0.5) < 0.03
    assert abs(share.var() - 1 / (4 * (2 * 0.2 + 1))) < 0.01
    _, targets = mixed_by(images, labels, keys, mixup=0.0, cutmix=True)
    share = np.asarray(targets)[np.arange(number), own]
    # A uniform share of the area, of which the border cuts some: on average (1 - E[side] / 4)^2 of a long side.
    assert 0.6 < share.mean() < 0.75
    assert share.min() < 0.4 and share.max() > 0.99


def test_where_both_are_on_half_of_the_pictures_get_each():
    images, labels, _ = batch(2)
    number = 2000
    images = jnp.tile(images, (number // 2, 1, 1, 1))
    labels = jnp.tile(labels, (number // 2, 1))
    mixed, _ = mixed_by(images, labels, jr.split(jr.key(0), number), mixup=1.0, cutmix=True)
    flat = np.asarray(mixed)[..., 0].std((1, 2)) < 1e-6
    fractional = np.abs(np.asarray(mixed)[:, 0, 0, 0] - 0.5) < 0.499
    assert 0.45 < (flat & fractional).mean() < 0.55


def test_a_batch_comes_out_the_same_however_it_is_split():
    images, labels, keys = batch()
    apply = functools.partial(mixed_by, mixup=0.2, cutmix=True)
    whole = apply(images, labels, keys)
    for size in (2, 32):
        parts = [apply(images[a : a + size], labels[a : a + size], keys[a : a + size]) for a in range(0, 64, size)]
        # The last bits of XLA's logarithms depend on where an element falls in a vector register.
        np.testing.assert_allclose(jnp.concatenate([part[1] for part in parts]), whole[1], rtol=0, atol=1e-5)
        np.testing.assert_allclose(jnp.concatenate([part[0] for part in parts]), whole[0], rtol=0, atol=1e-5 * 64)


def test_it_runs_inside_shard_map_without_a_collective():
    images, labels, keys = batch()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(spec, spec, spec), out_specs=(spec, spec))
    def sharded(images, labels, keys):
        return mix(images, labels, keys, mixup=0.2, cutmix=True)

    whole = mixed_by(images, labels, keys, mixup=0.2, cutmix=True)
    for part, expected in zip(sharded(images, labels, keys), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-5 * 64)
    text = sharded.lower(images, labels, keys).compile().as_text()
    assert not [name for name in ("all-gather", "all-reduce", "collective-permute", "all-to-all") if name in text]


def test_a_picture_depends_on_its_own_key_and_its_neighbour_only():
    images, labels, keys = batch(8)
    first, _ = mixed_by(images, labels, keys, mixup=0.2, cutmix=True)
    others = jr.split(jr.key(99), 8)
    second, _ = mixed_by(images, labels, jnp.concatenate([keys[:1], others[1:]]), mixup=0.2, cutmix=True)
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.array_equal(first[1:], second[1:])


def test_the_dtypes_stay():
    images, labels, keys = batch(64, "bfloat16")
    mixed, targets = jax.eval_shape(functools.partial(mix, mixup=0.2, cutmix=True), images, labels, keys)
    assert mixed.dtype == images.dtype
    assert targets.dtype == labels.dtype


def test_with_both_off_nothing_changes_and_the_number_may_be_odd():
    images, labels, keys = batch(3)
    mixed, targets = mix(images, labels, keys, mixup=0.0, cutmix=False)
    assert mixed is images and targets is labels


def test_an_odd_number_is_refused():
    with pytest.raises(InputError, match=r"batch size \(=3 on a device\) must be even"):
        mix(*batch(3), mixup=0.2, cutmix=False)
