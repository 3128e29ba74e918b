"""A run of seconds on scikit-learn's digits, to see that training works on a machine.

nfnet-eqx train --recipe smoke --out runs/smoke
"""

from pathlib import Path

from nfnet_eqx.data import Augment
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import NFNetConfig
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._optimizer import OptimizerConfig
from nfnet_eqx.train.recipes._cifar10 import NETWORK


def smoke(
    data: Path = Path("digits"), out: Path = Path("runs/smoke"), model: str | NFNetConfig = NETWORK
) -> TrainConfig:
    """Three epochs at 16 pixels, from random parameters in the shipped checkpoint's architecture."""
    return TrainConfig(
        model=model,
        data=data,
        out=out,
        image_size=16,
        eval_size=16,
        preprocess=Preprocess(crop_pct=1.0, crop_mode="squash", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        epochs=3,
        batch_size=32,
        augment=Augment(crop="padded", crop_padding=1, flip=False),
        optimizer=OptimizerConfig(learning_rate=0.8, warmup=0.1, clipping=0.1, clipping_eps=1.0, ema_decay=0.98),
        precision="float32",
    )
