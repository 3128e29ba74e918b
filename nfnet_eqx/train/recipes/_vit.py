"""The ViT side of the comparison: ImageNet from scratch with the optimizer that large ViTs are trained with.

    nfnet-eqx train --recipe vit --model vit_small_patch16_224 --data imagenet --out runs/vit_s16

References:
    Zhai et al., "Scaling Vision Transformers" (2106.04560), section 3, appendices B and C, with the released code
    (big_vision, `train_vit_g.py`) for the numbers; Beyer et al., "Better plain ViT baselines for ImageNet-1k"
    (2205.01580) for what ImageNet needs.
"""

from pathlib import Path

from nfnet_eqx.data import Augment
from nfnet_eqx.models import NetworkConfig
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._optimizer import OptimizerConfig


def vit(data: Path, out: Path, model: str | NetworkConfig = "vit_small_patch16_224") -> TrainConfig:
    """90 epochs at batch 1024 with Adafactor and the sigmoid loss, at the image sizes of the model; an NFNet's too.

    As in 2106.04560: Adafactor with a momentum in bfloat16, a peak of 8e-4 whatever the batch, gradients clipped at
    norm 1, weight decay 0.03 and for the classifier 3, sigmoid cross-entropy, 1 / sqrt(step) after a warm-up and a
    linear cool-down; no dropout, smoothing or averaged parameters. As in 2205.01580, since ImageNet is small beside
    JFT: epochs, batch, RandAugment of 2 layers at magnitude 10, Mix-Up 0.2. Ours: warm-up and cool-down are shares of
    the run, 1/10 and 2/5, instead of 10,000 and 50,000 steps (which in 90 epochs are about as much); classes start from
    a bias of -6.9, minus the logarithm of 1000, as the paper's -10 is about that of its 29,593.

    AdamW as in 2205.01580 is `--optimizer.kind adamw --optimizer.learning-rate 0.001 --optimizer.weight-decay 0.1
    --optimizer.head-weight-decay None --optimizer.schedule cosine --optimizer.cooldown 0 --loss softmax --head-bias 0`.
    To compare with an NFNet of another recipe, minimize the same loss in both: `--loss softmax --head-bias 0` here.
    """
    return TrainConfig(
        model=model,
        data=data,
        out=out,
        image_size=None,
        eval_size=None,
        epochs=90,
        batch_size=1024,
        loss="sigmoid",
        label_smoothing=0.0,
        head_bias=-6.9,
        drop_rate=0.0,
        stochastic_depth=0.0,
        augment=Augment(randaugment_layers=2, randaugment_magnitude=10, mixup=0.2),
        optimizer=OptimizerConfig(
            kind="adafactor",
            learning_rate=8e-4,
            schedule="rsqrt",
            warmup=0.1,
            cooldown=0.4,
            weight_decay=0.03,
            head_weight_decay=3.0,
            clipping=None,
            clip_norm=1.0,
            ema_decay=None,
        ),
    )
