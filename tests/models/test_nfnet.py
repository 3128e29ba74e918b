"""The network as a whole: what it takes and gives, what it refuses, and that signals and gradients pass through it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from nfnet_eqx import InputError, NFNet, NFNetConfig, create_model, get_config, named_parameters
from nfnet_eqx.models._families import skeleton
from nfnet_eqx.models._layers import gamma
from nfnet_eqx.models._names import with_parameters
from nfnet_eqx.optim import nfnet_sgd

F_STAGES = {"depths": (1, 1, 1, 1), "widths": (32, 48, 64, 64), "stage_strides": (1, 2, 2, 2)}


def shapes_of(function: Callable[..., Any], *args: Any) -> Any:
    """The shapes that a call would return; nothing is computed."""
    return [leaf.shape for leaf in jax.tree.leaves(eqx.filter_eval_shape(function, *args))]


def test_one_picture_gives_one_vector_of_logits(family: str, tiny: dict[str, NFNetConfig]):
    model = skeleton(tiny[family])
    for size in ((64, 64), (75, 65)):
        for dtype in (jnp.float32, jnp.bfloat16):
            out = eqx.filter_eval_shape(lambda m, x: m(x), model, jax.ShapeDtypeStruct((3, *size), dtype))
            assert (out.shape, out.dtype) == ((10,), dtype)


def test_without_classes_it_gives_the_pooled_features(family: str, tiny: dict[str, NFNetConfig]):
    config = dataclasses.replace(tiny[family], num_classes=0)
    assert shapes_of(lambda m, x: m(x), skeleton(config), jax.ShapeDtypeStruct((3, 64, 64), jnp.float32)) == [
        (config.num_features or config.widths[-1],)
    ]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("dm_nfnet_f0", [64, 256, 512, 1536, 3072]),
        ("dm_nfnet_f0_plus", [64, 384, 768, 2048, 4096]),
        ("nfnet_l0", [64, 256, 512, 1536, 2304]),
        ("test_nfnet", [64, 32, 64, 96, 192]),
        ("nf_regnet_b0", [40, 40, 80, 160, 960]),
        ("nf_resnet26", [64, 256, 512, 1024, 2048]),
    ],
)
def test_the_five_feature_maps_are_timms_taps(name: str, channels: list[int]):
    model = skeleton(get_config(name))
    for size in ((96, 64), (75, 101)):
        expected = [(c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(channels, (2, 4, 8, 16, 32), strict=True)]
        assert shapes_of(lambda m, x: m.features(x), model, jax.ShapeDtypeStruct((3, *size), jnp.float32)) == expected


@pytest.mark.parametrize(("output_stride", "strides"), [(16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))])
@pytest.mark.parametrize("family_", ["dm_nfnet", "nfnet", "nf_regnet", "nf_resnet"])
def test_a_smaller_output_stride_gives_larger_maps(
    family_: str, output_stride: int, strides: tuple[int, ...], tiny: dict[str, NFNetConfig]
):
    stages = (
        F_STAGES | {"stage_strides": get_config("nf_regnet_b0").stage_strides} if family_ == "nf_regnet" else F_STAGES
    )
    model = skeleton(dataclasses.replace(tiny[family_], output_stride=output_stride, **stages))
    shapes = shapes_of(lambda m, x: m.features(x), model, jax.ShapeDtypeStruct((3, 64, 96), jnp.float32))
    assert [shape[1:] for shape in shapes] == [(64 // s, 96 // s) for s in strides]


def test_every_shape_of_stem_has_its_tap(tiny: dict[str, NFNetConfig]):
    """The convolution before the stem's last, or its only one."""
    for widths, strides, tap, stride in [
        ((16,), (1,), 16, 1),
        ((8, 12), (2, 1), 8, 2),
        ((8, 12, 16), (2, 1, 1), 12, 2),
        ((8, 12, 16, 20), (2, 1, 1, 2), 16, 2),
    ]:
        config = dataclasses.replace(tiny["nfnet"], stem_widths=widths, stem_strides=strides)
        shapes = shapes_of(lambda m, x: m.features(x), skeleton(config), jax.ShapeDtypeStruct((3, 32, 32), jnp.float32))
        assert shapes[0] == (tap, 32 // stride, 32 // stride), widths


@pytest.mark.parametrize("family_", ["dm_nfnet", "nf_ecaresnet"])
def test_vmap_is_a_loop_over_pictures(family_: str, tiny: dict[str, NFNetConfig], trained: Callable, picture: Callable):
    model = trained(tiny[family_])
    pictures = jnp.stack([picture(40, seed=seed) for seed in range(3)])
    batch = eqx.filter_jit(lambda model, xs: jax.vmap(model)(xs))(model, pictures)
    single = eqx.filter_jit(model)
    np.testing.assert_allclose(batch, jnp.stack([single(x) for x in pictures]), rtol=0, atol=5e-6)


def test_numpy_pictures_are_taken(tiny: dict[str, NFNetConfig]):
    assert shapes_of(lambda m: m(np.zeros((3, 64, 64), np.float32)), skeleton(tiny["nfnet"])) == [(10,)]


def test_features_and_head_are_the_network(tiny: dict[str, NFNetConfig], trained: Callable, picture: Callable):
    model = trained(tiny["dm_nfnet"])
    x = picture(40)
    *_, last = eqx.filter_jit(NFNet.features)(model, x)
    pooled = jnp.mean(model.final_act(last), axis=(1, 2))
    logits = eqx.filter_jit(model)(x)
    np.testing.assert_allclose(logits, model.head.fc.weight @ pooled + model.head.fc.bias, rtol=0, atol=5e-6)
    headless = eqx.tree_at(lambda m: m.head.fc, model, None)
    np.testing.assert_allclose(eqx.filter_jit(headless)(x), pooled, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("shape", "dtype", "named"),
    [
        ((2, 3, 64, 64), "float32", "got shape (2, 3, 64, 64); use jax.vmap(model)(x) for a batch"),
        ((64, 64), "float32", "got shape (64, 64); give one picture"),
        ((64, 64, 3), "float32", "got shape (64, 64, 3); is it (height, width, channels)? use x.transpose(2, 0, 1)"),
        ((4, 64, 64), "float32", "in_channels=3 channels first, got shape (4, 64, 64)"),
        ((3, 64, 64), "uint8", "x must be floating point, got uint8; normalize the picture first"),
        ((3, 64, 64), "int32", "x must be floating point, got int32"),
        ((3, 31, 64), "float32", "at least 32 pixels high and wide (the network's stride), got 31 x 64; resize"),
        ((3, 64, 0), "float32", "got 64 x 0"),
    ],
)
def test_a_wrong_picture_is_refused_with_what_to_do(shape: tuple[int, ...], dtype: str, named: str):
    model = skeleton(get_config("test_nfnet"))
    for call in (lambda m, x: m(x), lambda m, x: m.features(x)):
        with pytest.raises(InputError, match="x must") as caught:
            eqx.filter_eval_shape(call, model, jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)))
        assert named in str(caught.value)


def test_the_smallest_picture_follows_the_output_stride():
    config = dataclasses.replace(get_config("test_nfnet"), output_stride=8)
    assert shapes_of(lambda m, x: m(x), skeleton(config), jax.ShapeDtypeStruct((3, 8, 8), jnp.float32)) == [(1000,)]
    with pytest.raises(InputError, match="at least 8 pixels"):
        shapes_of(lambda m, x: m(x), skeleton(config), jax.ShapeDtypeStruct((3, 8, 7), jnp.float32))


@pytest.mark.parametrize(
    ("rates", "layer"), [({"stochastic_depth": 0.25}, "stochastic_depth"), ({"drop_rate": 0.5}, "dropout")]
)
def test_training_without_a_key_says_what_to_do(rates: dict[str, float], layer: str, tiny: dict[str, NFNetConfig]):
    model = skeleton(dataclasses.replace(tiny["nfnet"], **rates))
    x = jax.ShapeDtypeStruct((3, 64, 64), jnp.float32)
    with pytest.raises(InputError, match=rf"key \(=None\) is needed in training: {layer} drops with rate"):
        shapes_of(lambda m, x: m(x), model, x)
    for call in (
        lambda m, x: m(x, inference=True),
        lambda m, x: eqx.nn.inference_mode(m)(x),
        lambda m, x: m(x, key=jr.key(0)),
    ):
        assert shapes_of(call, model, x) == [(10,)]


def test_inference_is_deterministic_and_training_follows_its_key(
    tiny: dict[str, NFNetConfig], trained: Callable, picture: Callable
):
    calm = trained(tiny["nfnet"])
    model = trained(dataclasses.replace(tiny["nfnet"], stochastic_depth=0.5, drop_rate=0.5))
    x = picture(32)
    expected = eqx.filter_jit(calm)(x)
    np.testing.assert_array_equal(eqx.filter_jit(eqx.nn.inference_mode(model))(x), expected)
    call = eqx.filter_jit(lambda key, inference: model(x, key=key, inference=inference))
    # Another compilation (the network is a constant in it), so not the same to the bit.
    np.testing.assert_allclose(call(None, True), expected, rtol=0, atol=5e-6)
    first, again, *others = (call(jr.key(seed), None) for seed in (0, 0, 1, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert all(np.abs(other - first).max() > 1e-3 for other in others)


def test_each_block_is_dropped_at_its_own_rate(tiny: dict[str, NFNetConfig]):
    config = dataclasses.replace(tiny["dm_nfnet"], depths=(3,), stochastic_depth=0.3)
    model = skeleton(config)
    assert [block.stochastic_depth.rate for stage in model.stages for block in stage] == pytest.approx([0, 0.1, 0.2])
    assert not any(block.stochastic_depth.rescale for stage in model.stages for block in stage)


def test_blocks_draw_independently(tiny: dict[str, NFNetConfig], trained: Callable):
    """Each block and the head gets a key of its own."""
    config = dataclasses.replace(tiny["nfnet"], depths=(4,), stochastic_depth=0.75, alpha=1.0)
    model = trained(config)
    x = jr.normal(jr.key(0), (3, 32, 32))
    outs = eqx.filter_jit(lambda m, keys: jax.vmap(lambda key: m(x, key=key))(keys))(model, jr.split(jr.key(1), 128))
    # Rates 0, 1/4, 1/2, 3/4: three independent draws give eight networks.
    assert len(np.unique(np.round(np.asarray(outs), 4), axis=0)) == 8


@pytest.mark.parametrize("branches", [False, True], ids=["fresh", "with its branches"])
@pytest.mark.parametrize("family_", ["dm_nfnet", "nfnet"])
def test_signals_keep_the_variance_that_beta_expects(
    family_: str, branches: bool, tiny: dict[str, NFNetConfig], getkey: Callable
):
    """Fresh branches end in 0 and leave every stage's variance at 1. With gains of 1 each block adds alpha^2."""
    # Without what changes the variance of white noise by design: pools, and a gate that is not exactly 1/2.
    stages = {"depths": (1, 3, 2), "widths": (64, 96, 128), "stage_strides": (1, 1, 1), "stem_strides": (2, 1, 1, 1)}
    config = dataclasses.replace(tiny[family_], attention=None, **stages, stem_widths=(16, 16, 32, 48))
    # gamma in the weight also scales the first convolution, which has no activation before it.
    scale = 1 / gamma("gelu") if config.gamma_in == "weight" else 1.0
    init, features = eqx.filter_jit(NFNet), eqx.filter_jit(NFNet.features)
    moments = []
    for _ in range(4):
        model = init(config, key=getkey())
        if branches:
            parameters = named_parameters(model).items()
            model = with_parameters(model, {n: jnp.ones_like(a) if n.endswith("gain") else a for n, a in parameters})
        taps = features(model, scale * jr.normal(getkey(), (3, 128, 128)))
        # Away from the border, where the padding's zeros dilute the variance. The last tap is the final convolution's.
        moments.append([float(jnp.mean(jnp.square(tap[:, 20:-20, 20:-20]))) for tap in taps[1:-1]])
    expected = [1 + depth * config.alpha**2 * branches for depth in config.depths[:-1]]
    np.testing.assert_allclose(np.mean(moments, axis=0), expected, rtol=0.1)


def test_a_fresh_network_ignores_its_branches(tiny: dict[str, NFNetConfig], getkey: Callable):
    for family_, name in (("dm_nfnet", "skipinit_gain"), ("nfnet", "conv3.gain")):
        model = eqx.filter_jit(NFNet)(tiny[family_], key=getkey())
        gains = {n: a for n, a in named_parameters(model).items() if n.startswith("stages.") and n.endswith(name)}
        assert len(gains) == sum(tiny[family_].depths) and not any(a.any() for a in gains.values())
        others = {n: a for n, a in named_parameters(model).items() if n.endswith("gain") and n not in gains}
        assert all(bool(jnp.all(a == 1)) for a in others.values())


def test_the_classifier_starts_small_or_at_zero(tiny: dict[str, NFNetConfig], getkey: Callable):
    model = eqx.filter_jit(NFNet)(dataclasses.replace(tiny["nfnet"], num_classes=1000), key=getkey())
    assert float(jnp.std(model.head.fc.weight)) == pytest.approx(0.01, rel=0.02)
    assert not model.head.fc.bias.any()
    config = dataclasses.replace(tiny["nfnet"], zero_init_head=True)
    assert not eqx.filter_jit(NFNet)(config, key=getkey()).head.fc.weight.any()


@pytest.mark.parametrize("numerics", ["timm", "deepmind"])
def test_a_skeleton_has_the_structure_shapes_and_dtypes_of_a_network(
    numerics: Any, family: str, tiny: dict[str, NFNetConfig], getkey: Callable
):
    config = dataclasses.replace(tiny[family], numerics=numerics)
    drawn = eqx.filter_eval_shape(NFNet, config, key=getkey())
    assert jax.tree.structure(skeleton(config)) == jax.tree.structure(drawn)
    assert jax.tree.leaves(skeleton(config)) == jax.tree.leaves(drawn)


def test_no_two_layers_start_alike(tiny: dict[str, NFNetConfig], getkey: Callable):
    arrays = named_parameters(eqx.filter_jit(NFNet)(tiny["dm_nfnet"], key=getkey()))
    starts = [float(a.reshape(-1)[0] / jnp.std(a)) for name, a in arrays.items() if name.endswith("weight")]
    assert len(set(starts)) == len(starts)


def test_create_model_is_the_named_config(getkey: Callable):
    model = eqx.filter_eval_shape(create_model, "test_nfnet", key=getkey(), num_classes=7, in_channels=1)
    assert model.config == dataclasses.replace(get_config("test_nfnet"), num_classes=7, in_channels=1)
    assert shapes_of(lambda m, x: m(x), model, jax.ShapeDtypeStruct((1, 32, 32), jnp.float32)) == [(7,)]


@pytest.mark.parametrize("family_", ["dm_nfnet", "nfnet"])
def test_bfloat16_is_close_to_float32(family_: str, tiny: dict[str, NFNetConfig], trained: Callable, picture: Callable):
    model, x = trained(tiny[family_]), picture(64)
    call = eqx.filter_jit(lambda m, x: m(x))
    exact = np.asarray(call(model, x))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_array(leaf) else leaf, model)
    # Parameters in float32 with a bfloat16 picture, and both in bfloat16.
    for other in (model, half):
        out = call(other, x.astype(jnp.bfloat16))
        assert out.dtype == jnp.bfloat16
        np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=0, atol=0.03 * np.abs(exact).max())


def test_it_compiles_once(tiny: dict[str, NFNetConfig], trained: Callable, picture: Callable):
    """Neither other parameters, nor other pictures, nor other keys make it compile again."""
    config = dataclasses.replace(tiny["nf_resnet"], stochastic_depth=0.5, drop_rate=0.1)

    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def call(model: NFNet, x: jax.Array, key: jax.Array) -> jax.Array:
        return model(x, key=key)

    for seed in range(3):
        call(trained(config, seed=seed), picture(32, seed=seed), jr.key(seed))


@pytest.mark.parametrize("family_", ["dm_nfnet", "eca_nfnet", "nf_regnet"])
def test_a_few_steps_of_training_lower_the_loss(family_: str, tiny: dict[str, NFNetConfig], picture: Callable):
    """With everything that training draws; from a fresh network, whose branches start at 0."""
    config = dataclasses.replace(tiny[family_], stochastic_depth=0.1, drop_rate=0.1)
    model = eqx.filter_jit(NFNet)(config, key=jr.key(0))
    start = named_parameters(model)
    pictures, labels = jnp.stack([picture(32, seed=seed) for seed in range(8)]), jnp.arange(8)
    # Clipping hardly lets a branch that starts at 0 move: 0.1 of its norm is enough for so few steps.
    optimizer = nfnet_sgd(0.1, clipping=0.1)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    def loss_of(model: NFNet, key: jax.Array) -> jax.Array:
        logits = jax.vmap(lambda x, key: model(x, key=key))(pictures, jr.split(key, 8))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    @eqx.filter_jit
    def step(model: NFNet, state: Any, key: jax.Array) -> tuple[NFNet, Any, jax.Array, Any]:
        loss, grads = eqx.filter_value_and_grad(loss_of)(model, key)
        updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, loss, grads

    losses = []
    for i in range(10):
        model, state, loss, grads = step(model, state, jr.key(i))
        assert all(bool(jnp.all(jnp.isfinite(g))) for g in named_parameters(grads).values()), f"step {i}"
        losses.append(float(loss))
    assert losses[0] == pytest.approx(math.log(10), abs=0.2)
    assert np.mean(losses[-3:]) < 0.8 * losses[0], losses
    # A gain of 1 behind a branch that is nearly shut moves by less than float32 can show.
    still = [n for n, a in named_parameters(model).items() if bool(jnp.all(a == start[n])) and start[n].any()]
    assert [name for name in still if not name.endswith(".gain")] == [], "every weight learns"
