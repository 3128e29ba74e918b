"""Layer-wise decay of the learning rate, and training of a part of a network."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nfnet_eqx as nfx
from nfnet_eqx import InputError
from nfnet_eqx.models._families import skeleton
from nfnet_eqx.models._names import parameter_name
from nfnet_eqx.optim import nfnet_sgd, scale_by_layer


def rates(tree: Any, decay: float) -> dict[str, float]:
    """What an update of 1 becomes, by name."""
    transform = scale_by_layer(decay)
    scaled, _ = transform.update(tree, transform.init(tree))
    leaves = jax.tree_util.tree_leaves_with_path(scaled)
    return {parameter_name(path): float(leaf.max()) for path, leaf in leaves}


def ones(name: str) -> Any:
    """An update of 1 for every parameter of the network of this name, each as one number."""
    shapes = eqx.filter(skeleton(nfx.get_config(name)), lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return jax.tree.map(lambda leaf: jnp.ones(()), shapes)


@pytest.mark.parametrize("name", ["test_nfnet", "dm_nfnet_f0", "nf_regnet_b0", "nf_resnet26", "eca_nfnet_l0"])
def test_the_rate_falls_by_the_decay_at_each_block_from_head_to_stem(name: str):
    depths = nfx.get_config(name).depths
    blocks = [f"stages.{stage}.{block}." for stage, depth in enumerate(depths) for block in range(depth)]
    expected = {"head.": 1.0, "final_conv.": 0.5, "stem.": 0.5 ** (len(blocks) + 1)}
    expected |= {block: 0.5 ** (i + 1) for i, block in enumerate(reversed(blocks))}
    for parameter, rate in rates(ones(name), 0.5).items():
        prefix = next(prefix for prefix in expected if parameter.startswith(prefix))
        assert rate == expected[prefix], parameter


def test_the_tenth_block_comes_after_the_second():
    tree = {"stages": {"0": {str(block): {"gain": jnp.ones(3)} for block in range(12)}}, "head": {"gain": jnp.ones(3)}}
    rate = rates(tree, 0.5)
    assert rate["stages.0.11.gain"] == 0.5 and rate["stages.0.10.gain"] == 0.25 and rate["stages.0.2.gain"] == 0.5**10


@pytest.mark.parametrize("name", ["vit_micro_patch4_32", "vit_tiny_patch16_224"])
def test_a_vit_as_training_divides_it_has_its_rates(name: str):
    """What is no parameter, such as a dropout's rate, is missing there; its name must not be refused."""
    config = nfx.get_config(name)
    expected = {f"blocks.{i}.": 0.5 ** (config.depth - i) for i in range(config.depth)}
    expected |= dict.fromkeys(("cls_token", "pos_embed", "patch_embed."), 0.5 ** (config.depth + 1))
    expected |= dict.fromkeys(("norm.", "attn_pool.", "head."), 1.0)
    for parameter, rate in rates(ones(name), 0.5).items():
        prefix = next(prefix for prefix in expected if parameter.startswith(prefix))
        assert rate == expected[prefix], parameter


def test_frozen_blocks_move_nobody_elses_rate():
    tree, frozen = ones("test_nfnet"), ("stem.", "stages.1.", "stages.3.")
    trained = eqx.filter(tree, nfx.parameter_mask(tree, lambda name: not name.startswith(frozen)))
    whole, part = rates(tree, 0.7), rates(trained, 0.7)
    assert part == {name: rate for name, rate in whole.items() if not name.startswith(frozen)}


def test_the_dtype_of_an_update_stays():
    scaled, _ = scale_by_layer(0.5).update({"stem": {"conv": jnp.ones(3, jnp.bfloat16)}}, optax.EmptyState())
    assert scaled["stem"]["conv"].dtype == jnp.bfloat16


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1, float("nan")])
def test_a_decay_that_is_none_is_refused(decay: float):
    with pytest.raises(InputError, match=rf"decay must be above 0 and at most 1, got {decay}"):
        scale_by_layer(decay)


def test_parameters_of_another_network_are_refused_by_name():
    tree = {"encoder": {"layer": jnp.ones(3)}, "head": {"weight": jnp.ones(3)}, "stages": {"weight": jnp.ones(3)}}
    with pytest.raises(InputError, match=r"no layer of a network: \['encoder\.layer', 'stages\.weight'\]"):
        scale_by_layer(0.5).update(tree, optax.EmptyState())


def walk(params: Any, optimizer: optax.GradientTransformation, steps: int = 3) -> Any:
    """The parameters after some steps of random gradients, the same ones for a name wherever it occurs."""
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(steps):
        grads = jax.tree_util.tree_map_with_path(
            lambda path, p, step=step: jnp.asarray(
                np.random.RandomState(sum(map(ord, jax.tree_util.keystr(path))) + step).standard_normal(p.shape),
                p.dtype,
            ),
            params,
        )
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_a_frozen_part_stays_and_the_rest_moves_as_if_all_were_trained(model: nfx.NFNet):
    optimizer = nfnet_sgd(0.1, weight_decay=0.01, layer_decay=0.8)
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    trained = nfx.parameter_mask(params, lambda name: name.startswith(("stages.1.", "final_conv.", "head.")))
    moving, frozen = eqx.partition(params, trained)

    whole, part = nfx.named_parameters(walk(params, optimizer)), walk(moving, optimizer)
    before = nfx.named_parameters(params)
    for name, leaf in nfx.named_parameters(eqx.combine(part, frozen, rest)).items():
        moved = name.startswith(("stages.1.", "final_conv.", "head."))
        np.testing.assert_array_equal(leaf, whole[name] if moved else before[name], err_msg=name)
        assert moved == bool(jnp.any(leaf != before[name])), name


def test_layer_decay_scales_the_step_and_nothing_before_it(model: nfx.NFNet):
    """Momentum and decay of a layer are those of the plain optimizer: only its rate is another."""
    params = eqx.filter(model, eqx.is_inexact_array)
    grads = jax.tree.map(jnp.ones_like, params)
    plain, decayed = (nfnet_sgd(0.1, layer_decay=decay) for decay in (1.0, 0.5))
    ours, _ = decayed.update(grads, decayed.init(params), params)
    theirs, _ = scale_by_layer(0.5).update(plain.update(grads, plain.init(params), params)[0], optax.EmptyState())
    for name, leaf in nfx.named_parameters(ours).items():
        np.testing.assert_array_equal(leaf, nfx.named_parameters(theirs)[name], err_msg=name)


def test_without_clipping_it_is_plain_sgd(model: nfx.NFNet):
    params = eqx.filter(model, eqx.is_inexact_array)
    ours = walk(params, nfnet_sgd(0.1, weight_decay=0.0, clipping=None))
    plain = walk(params, optax.sgd(0.1, momentum=0.9, nesterov=True))
    for name, leaf in nfx.named_parameters(ours).items():
        np.testing.assert_array_equal(leaf, nfx.named_parameters(plain)[name], err_msg=name)
