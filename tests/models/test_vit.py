"""The vision transformer: what it takes and gives, what it refuses, and that every part of it is used."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfnet_eqx as nfx
from nfnet_eqx import InputError, ViTConfig, named_parameters
from nfnet_eqx.models import VITS, layers_below_head, skeleton, with_parameters

FLOAT32 = jnp.float32


def shapes_of(function: Callable[..., Any], *args: Any) -> Any:
    """The shapes that a call would return; nothing is computed."""
    return [leaf.shape for leaf in jax.tree.leaves(eqx.filter_eval_shape(function, *args))]


def spec(*shape: int, dtype: Any = FLOAT32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


# --- what it takes and gives ---


def test_one_image_gives_one_vector_of_logits_whatever_its_size(vit: ViTConfig):
    for size in ((16, 16), (8, 24)):
        for dtype in (jnp.float32, jnp.bfloat16):
            out = eqx.filter_eval_shape(lambda m, x: m(x), skeleton(vit), spec(3, *size, dtype=dtype))
            assert (out.shape, out.dtype) == ((10,), dtype)
    headless = skeleton(dataclasses.replace(vit, num_classes=0))
    assert shapes_of(lambda m, x: m(x), headless, spec(3, 16, 16)) == [(32,)]


def test_the_feature_maps_are_the_patches_after_each_block(vit: ViTConfig):
    assert shapes_of(lambda m, x: m.features(x), skeleton(vit), spec(3, 8, 20)) == [(32, 2, 5)] * 2


def test_a_feature_map_is_laid_out_as_the_image(vits: dict[str, ViTConfig]):
    """The patches of the network's input, where nothing else moves them."""
    model = skeleton(dataclasses.replace(vits["sincos2d"], depth=1, width=48, class_token=True))
    zeros = {name: jnp.zeros(a.shape) for name, a in named_parameters(model).items()}
    identity = jnp.eye(48).reshape(48, 3, 4, 4)
    model = with_parameters(model, zeros | {"patch_embed.proj.weight": identity})
    x = jax.random.normal(jax.random.key(0), (3, 8, 12))
    features = eqx.filter_jit(type(model).features)
    moved = features(model, x)[0] - features(model, jnp.zeros_like(x))[0]
    np.testing.assert_allclose(moved[:, 1, 2], x[:, 4:8, 8:12].reshape(-1), rtol=0, atol=1e-6)


def test_vmap_is_a_loop_over_images(vits: dict[str, ViTConfig], trained: Callable, picture: Callable):
    model = trained(vits["map"])
    images = jnp.stack([picture(16, seed=seed) for seed in range(3)])
    batch = eqx.filter_jit(lambda model, xs: jax.vmap(model)(xs))(model, images)
    single = eqx.filter_jit(model)
    np.testing.assert_allclose(batch, jnp.stack([single(x) for x in images]), rtol=0, atol=5e-6)


def test_features_and_logits_come_from_one_pass(vit: ViTConfig, trained: Callable, picture: Callable):
    model, x = trained(vit), picture(16)
    features, logits = eqx.filter_jit(type(model).features_and_logits)(model, x)
    assert len(features) == 2
    # Without its classifier it is what the classifier sees.
    pooled = eqx.filter_jit(eqx.tree_at(lambda m: m.head, model, None))(x)
    np.testing.assert_allclose(model.head.weight @ pooled + model.head.bias, logits, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("shape", "dtype", "named"),
    [
        ((2, 3, 16, 16), "float32", "use jax.vmap(model)(x) for a batch"),
        ((16, 16, 3), "float32", "is it (height, width, channels)? use x.transpose(2, 0, 1)"),
        ((3, 16, 16), "uint8", "x must be floating point, got uint8"),
        ((3, 18, 16), "float32", "x must be a multiple of 4 pixels high and wide (the patches' side), got 18 x 16"),
        ((3, 0, 16), "float32", "x must be a multiple of 4 pixels"),
    ],
)
def test_a_wrong_image_is_refused_with_what_to_do(
    shape: tuple[int, ...], dtype: str, named: str, vits: dict[str, ViTConfig]
):
    with pytest.raises(InputError) as caught:
        eqx.filter_eval_shape(lambda m, x: m(x), skeleton(vits["map"]), spec(*shape, dtype=jnp.dtype(dtype)))
    assert named in str(caught.value)


@pytest.mark.parametrize("kind", ["map", "mean"])
def test_bfloat16_is_close_to_float32(kind: str, vits: dict[str, ViTConfig], trained: Callable, picture: Callable):
    """Sums of normalization and softmax stay in float32."""
    model, x = trained(vits[kind]), picture(16)
    run = eqx.filter_jit(model)
    exact, rough = run(x), run(x.astype(jnp.bfloat16))
    assert jnp.abs(rough.astype(FLOAT32) - exact).max() < 0.05 * jnp.abs(exact).max()
    jaxpr = str(jax.make_jaxpr(lambda x: model(x))(x.astype(jnp.bfloat16)))
    for operation in ("exp", "rsqrt"):
        assert "f32[" in next(line for line in jaxpr.splitlines() if f" {operation} " in line), operation


# --- positions ---


@pytest.mark.parametrize("kind", ["map", "token, registers", "sincos2d"])
def test_a_network_for_another_image_size_is_the_same_function_there(
    kind: str, vits: dict[str, ViTConfig], trained: Callable, picture: Callable
):
    vit = vits[kind]
    model, x = trained(vit), picture(24)
    larger = model.at_image_size(24)
    assert larger.config == dataclasses.replace(vit, image_size=24)
    assert {n: a.shape for n, a in named_parameters(larger).items()} == {
        n: a.shape for n, a in named_parameters(skeleton(larger.config)).items()
    }
    np.testing.assert_allclose(eqx.filter_jit(larger)(x), eqx.filter_jit(model)(x), rtol=0, atol=5e-6)
    assert eqx.tree_equal(model.at_image_size(16), model)


def test_an_image_size_between_patches_is_refused(vits: dict[str, ViTConfig], trained: Callable):
    for model in (trained(vits["map"]), vits["map"]):
        with pytest.raises(InputError, match=r"image_size \(=18\) must be a multiple of patch_size \(=4\)"):
            model.at_image_size(18)


def test_the_prefix_keeps_its_positions(vits: dict[str, ViTConfig], trained: Callable):
    model = trained(vits["token, registers"])
    larger = model.at_image_size(32)
    np.testing.assert_array_equal(larger.pos_embed[0, :3], model.pos_embed[0, :3])
    assert larger.pos_embed.shape == (1, 3 + 64, 32)


def test_sines_and_cosines_follow_row_and_column(vits: dict[str, ViTConfig]):
    from nfnet_eqx.models._positions import sincos_positions

    positions = sincos_positions((2, 3), 8).reshape(2, 3, 4, 2)
    np.testing.assert_allclose(positions[1, 2, :, 0], [np.sin(2), np.cos(2), np.sin(1), np.cos(1)], atol=1e-6)
    np.testing.assert_allclose(positions[1, 2, :, 1], [2e-4, 1, 1e-4, 1], atol=1e-6)
    larger = sincos_positions((4, 5), 8).reshape(4, 5, 4, 2)
    np.testing.assert_array_equal(larger[:2, :3], positions)


# --- randomness ---


@pytest.mark.parametrize(
    ("rates", "layer"), [({"stochastic_depth": 0.25}, "stochastic_depth"), ({"drop_rate": 0.5}, "dropout")]
)
def test_training_without_a_key_says_what_to_do(rates: dict[str, float], layer: str, vits: dict[str, ViTConfig]):
    model = skeleton(dataclasses.replace(vits["map"], **rates))
    with pytest.raises(InputError, match=rf"key \(=None\) is needed in training: {layer} drops with rate"):
        shapes_of(lambda m, x: m(x), model, spec(3, 16, 16))
    assert shapes_of(lambda m, x: m(x, inference=True), model, spec(3, 16, 16)) == [(10,)]
    assert shapes_of(lambda m, x: m(x), eqx.nn.inference_mode(model), spec(3, 16, 16)) == [(10,)]


def test_stochastic_depth_rises_from_0_and_keeps_the_mean(vits: dict[str, ViTConfig], trained: Callable):
    config = dataclasses.replace(vits["map"], stochastic_depth=0.5, depth=3)
    model = trained(config)
    assert [block.stochastic_depth.rate for block in model.blocks] == [0, 0.25, 0.5]
    x = jax.random.normal(jax.random.key(1), (16, 32))
    keys = jax.random.split(jax.random.key(0), 4000)
    outs = jax.jit(jax.vmap(lambda key: model.blocks[2](x, key=key)))(keys)[:, 0, 0]
    outcomes, counts = np.unique(np.asarray(outs).round(4), return_counts=True)
    # Two branches, dropped independently with rate 1/2: four outputs, one of them the input.
    assert len(outcomes) == 4 and np.isclose(outcomes, x[0, 0], atol=1e-3).sum() == 1
    assert np.abs(counts / 4000 - 0.25).max() < 0.03


# --- every part is used ---


def test_every_parameter_gets_a_gradient(vit: ViTConfig, trained: Callable, picture: Callable):
    model, x = trained(dataclasses.replace(vit, drop_rate=0.1, stochastic_depth=0.1)), picture(16)
    loss = eqx.filter_grad(lambda m, key: jnp.sum(jnp.sin(m(x, key=key))))
    gradients = eqx.filter_jit(loss)(model, jax.random.key(3))
    silent = [name for name, g in named_parameters(gradients).items() if not jnp.any(g)]
    assert silent == []


def test_remat_changes_no_number(vits: dict[str, ViTConfig], trained: Callable, picture: Callable):
    model, x = trained(vits["token"]), picture(16)

    def gradients(model: Any) -> list[Any]:
        return jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(lambda m: jnp.sum(jnp.sin(m(x)))))(model))

    for plain, again in zip(gradients(model), gradients(model.with_remat()), strict=True):
        np.testing.assert_allclose(plain, again, rtol=0, atol=5e-6)


def test_there_is_nothing_to_fold(vits: dict[str, ViTConfig], trained: Callable):
    model = trained(vits["map"])
    assert nfx.fold(model) is model


@pytest.mark.parametrize("kind", ["map", "token, registers"])
def test_the_batch_may_be_free_in_an_export(kind: str, vits: dict[str, ViTConfig], trained: Callable):
    model = trained(vits[kind])
    shape = jax.export.symbolic_shape("b, 3, 24, 16")
    exported = jax.export.export(jax.jit(lambda x: jax.vmap(model)(x)))(jax.ShapeDtypeStruct(shape, "float32"))
    x = np.random.RandomState(0).standard_normal((3, 3, 24, 16)).astype(np.float32)
    expected = eqx.filter_jit(lambda model, x: jax.vmap(model)(x))(model, x)
    np.testing.assert_allclose(exported.call(x), expected, rtol=0, atol=5e-6)
    free = jax.ShapeDtypeStruct(jax.export.symbolic_shape("3, 4*h, 4*w"), "float32")
    with pytest.raises(InputError, match="x must have a known height and width.*the batch may be a symbol"):
        jax.export.export(jax.jit(lambda x: model(x)))(free)


# --- surgery ---


def test_a_new_classifier_starts_at_0_and_leaves_the_rest(vit: ViTConfig, trained: Callable):
    model = trained(vit)
    changed = nfx.replace_head(model, 7, key=jax.random.key(1))
    assert (changed.config.num_classes, changed.head.weight.shape) == (7, (7, 32))
    assert not changed.head.weight.any() and not changed.head.bias.any()
    before, after = named_parameters(model), named_parameters(changed)
    assert all(after[name] is before[name] for name in before if not name.startswith("head."))
    assert nfx.replace_head(model, 0, key=jax.random.key(1)).head is None


def test_other_channels_see_a_grey_image_as_its_equal_channels(
    vits: dict[str, ViTConfig], trained: Callable, picture: Callable
):
    model, grey = trained(vits["map"]), picture(16, channels=1)
    one = nfx.replace_in_channels(model, 1)
    grey_as_rgb = jnp.tile(grey, (3, 1, 1))
    np.testing.assert_allclose(eqx.filter_jit(one)(grey), eqx.filter_jit(model)(grey_as_rgb), rtol=0, atol=5e-6)
    assert nfx.replace_in_channels(model, 5).patch_embed.proj.weight.shape == (32, 5, 4, 4)


def test_masks_and_layers_go_by_timms_names(vits: dict[str, ViTConfig]):
    model = skeleton(vits["token, registers"])
    below = layers_below_head(list(named_parameters(model)))
    assert {below[name] for name in ("cls_token", "reg_token", "pos_embed", "patch_embed.proj.weight")} == {3}
    assert (below["blocks.0.mlp.fc1.bias"], below["blocks.1.attn.qkv.weight"]) == (2, 1)
    assert below["norm.weight"] == below["head.weight"] == 0
    mask = nfx.parameter_mask(model, lambda name: name.startswith("blocks.1."))
    assert {name for name in named_parameters(eqx.filter(model, mask))} == {
        n for n in below if n.startswith("blocks.1.")
    }


# --- fresh networks ---


def test_fresh_parameters_are_the_papers(vits: dict[str, ViTConfig]):
    config = dataclasses.replace(vits["token"], width=256, mlp_width=512, registers=2, pool="map", num_classes=10)
    parameters = {name: np.asarray(a) for name, a in named_parameters(nfx.ViT(config, key=jax.random.key(0))).items()}
    assert {str(a.dtype) for a in parameters.values()} == {"float32"}
    limits = {
        "blocks.0.attn.qkv.weight": 6 / 512,
        "blocks.1.attn.proj.weight": 6 / 512,
        "blocks.0.mlp.fc1.weight": 6 / 768,
        "attn_pool.kv.weight": 6 / 512,
        "attn_pool.latent": 6 / 257,
    }
    for name, square in limits.items():
        assert 0.95 * square**0.5 < np.abs(parameters[name]).max() <= square**0.5, name
        assert np.std(parameters[name]) == pytest.approx((square / 3) ** 0.5, rel=0.15), name
    assert np.std(parameters["patch_embed.proj.weight"]) == pytest.approx(48**-0.5, rel=0.05)
    assert np.std(parameters["pos_embed"]) == pytest.approx(1 / 16, rel=0.1)
    for name in ("cls_token", "reg_token", "blocks.0.mlp.fc1.bias"):
        assert 0 < np.std(parameters[name]) < 1e-5, name
    for name in ("head.weight", "head.bias", "blocks.0.attn.qkv.bias", "norm.bias"):
        assert not parameters[name].any(), name
    assert not np.array_equal(parameters["blocks.0.mlp.fc1.weight"], parameters["blocks.1.mlp.fc1.weight"])


def test_blocks_share_their_compiled_programs(vits: dict[str, ViTConfig], caplog: pytest.LogCaptureFixture):
    """A deep network starts as fast as a shallow one, up to running what is compiled."""

    def compiled(depth: int) -> int:
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            nfx.ViT(dataclasses.replace(vits["map"], depth=depth), key=jax.random.key(0))
        return sum("Finished XLA compilation" in record.message for record in caplog.records)

    compiled(2)
    assert compiled(9) <= 4


def test_without_a_key_there_is_no_network(vits: dict[str, ViTConfig], monkeypatch: pytest.MonkeyPatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the types forbid it, too
    with pytest.raises(InputError, match=r"key \(=None\) is needed.*jax.random.key"):
        nfx.ViT(vits["map"], key=None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", VITS)
def test_every_name_builds_and_takes_its_image(name: str):
    variant = VITS[name]
    model = skeleton(variant.config)
    assert shapes_of(lambda m, x: m(x), model, spec(3, variant.train_size, variant.train_size)) == [(1000,)]
