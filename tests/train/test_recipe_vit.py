"""The recipe `vit` trains either family, and on digits both learn within seconds."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from nfnet_eqx.data import Augment
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import NetworkConfig, ViTConfig, get_config
from nfnet_eqx.train import make_program, train
from nfnet_eqx.train.recipes import vit
from tests.train.test_step import mesh_of
from tests.train.tiny import TINY

VIT = ViTConfig(image_size=16, patch_size=4, width=64, depth=2, heads=2, mlp_width=128, num_classes=10)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "kind"), [(VIT, "adafactor"), (VIT, "adamw"), (TINY, "adafactor")])
def test_it_learns_digits_whatever_the_family(model: NetworkConfig, kind: str, tmp_path: Path):
    config = vit(Path("digits"), tmp_path / "run", model=model)
    # Larger steps than for 100,000 of them, and the bias of ten classes.
    result = train(
        dataclasses.replace(
            config, image_size=16, eval_size=16, epochs=5, batch_size=64, head_bias=-2.3, precision="float32",
            augment=Augment(crop="padded", flip=False), num_threads=2, eval_every_epochs=5,
            preprocess=Preprocess(crop_pct=1.0, crop_mode="squash"), export=None,
            optimizer=dataclasses.replace(config.optimizer, kind=kind, learning_rate=0.01),
        ),
        recipe="vit",
    )  # fmt: skip
    assert result.evaluation is not None
    assert result.evaluation.top1 > 30, "of ten classes, 10 % is chance"
    assert result.evaluation.loss < 1.9, "a softmax of the sigmoid's logits, and better than chance's 2.3"


@pytest.mark.parametrize("model", ["vit_small_patch16_224", "dm_nfnet_f0"])
def test_a_published_network_has_a_step_with_all_that_saves_memory(model: str, tmp_path: Path):
    # Traced, not compiled. A state that changed its types would compile again, and not be donated.
    config = dataclasses.replace(vit(Path("data"), tmp_path, model), fsdp=True, remat=True, micro_batches=2)
    program = make_program(config, get_config(model), Preprocess(), mesh_of(8), total_steps=10)
    images, labels = jax.ShapeDtypeStruct((32, 224, 224, 3), jnp.uint8), jax.ShapeDtypeStruct((32,), jnp.int32)
    state, _ = jax.eval_shape(program.step, program.abstract, images, labels)
    before, after = (
        {jax.tree_util.keystr(path): (a.shape, a.dtype) for path, a in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (program.abstract, state)
    )
    assert after == before
    size = {
        name: sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(getattr(state, name)))
        for name in ("params", "opt_state")
    }
    assert size["opt_state"] == pytest.approx(0.5 * size["params"], rel=0.05), (
        "a momentum in bfloat16, rows and columns"
    )
