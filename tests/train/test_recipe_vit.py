"""The recipe `vit` trains either family, and on digits both learn within seconds."""

import dataclasses
from pathlib import Path

import pytest

from nfnet_eqx.data import Augment
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import NetworkConfig, ViTConfig
from nfnet_eqx.train import train
from nfnet_eqx.train.recipes import vit
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
