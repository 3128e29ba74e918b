"""NFNets on ImageNet from scratch.

    nfnet-eqx train --recipe imagenet --model dm_nfnet_f0 --data imagenet --out runs/f0

References:
    2102.06171, section 6.1, table 1, appendices A.1 and A.3.
"""

import re
from pathlib import Path
from typing import NamedTuple

from nfnet_eqx.data import Augment
from nfnet_eqx.models import get_variant
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._optimizer import OptimizerConfig


class _Regularization(NamedTuple):
    drop_rate: float
    magnitude: float  # of RandAugment


# By N in NFNet-FN; F7 is the released code's.
_REGULARIZATION = (
    _Regularization(0.2, 5),
    _Regularization(0.3, 10),
    _Regularization(0.4, 10),
    _Regularization(0.4, 15),
    *[_Regularization(0.5, 15)] * 4,
)


def imagenet(data: Path, out: Path, model: str = "dm_nfnet_f0") -> TrainConfig:
    """360 epochs at batch 4096, with the picture sizes, dropout and RandAugment of the variant.

    Architectures outside the F series are regularized like F0. Unlike in the released code, RandAugment comes before
    mixing (it runs where pictures are decoded, mixing on the device) and a picture is mixed with its neighbour in the
    batch instead of with one decoded for this purpose.
    """
    variant = get_variant(model)
    number = re.search(r"nfnet_f(\d)", model)
    drop_rate, magnitude = _REGULARIZATION[int(number[1]) if number else 0]
    return TrainConfig(
        model=model,
        data=data,
        out=out,
        image_size=variant.train_size,
        eval_size=variant.test_size,
        epochs=360,
        batch_size=4096,
        drop_rate=drop_rate,
        stochastic_depth=0.25,
        augment=Augment(
            randaugment_layers=4,
            randaugment_magnitude=magnitude,
            mixup=0.2,
            cutmix=True,
        ),
        optimizer=OptimizerConfig(warmup=5 / 360),
    )
