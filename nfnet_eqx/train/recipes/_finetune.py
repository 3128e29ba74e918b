"""Fine-tuning a pre-trained network, on ImageNet as in the papers or on your own pictures.

    nfnet-eqx train --recipe finetune --model timm/dm_nfnet_f0.dm_in1k --data flowers --out runs/flowers \
        --epochs 10 --batch-size 256

References:
    2310.16764, section 3 (50 epochs, SAM, stochastic depth, dropout);
    2102.06171, appendix A.5 (the values that it does not give).
"""

from pathlib import Path

from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._optimizer import OptimizerConfig


def finetune(data: Path, out: Path, model: str) -> TrainConfig:
    """50 epochs at batch 2048, with sharpness-aware minimization, starting from a checkpoint, at its own image sizes.

    The paper trains at 384 pixels and evaluates at 480, whatever the checkpoint: `--image-size 384 --eval-size 480`.
    Data of fewer than 2048 images gets a batch that it can fill: the largest power of two (`TrainConfig.batch_size`).
    SAM's ascent sees a quarter of the batch (a fifth in 2102.06171, which no power of two divides into). The classifier
    starts afresh, unless `--keep-head`. Repeated augmentation, which gave 2310.16764 its last 0.1 %, is
    `--augment.repeats 4 --epochs 12.5`: fewer pictures at the same compute.
    """
    return TrainConfig(
        model=model,
        data=data,
        out=out,
        image_size=None,
        eval_size=None,
        epochs=50,
        batch_size=2048,
        drop_rate=0.25,
        stochastic_depth=0.1,
        # 0.1 at batch 2048, after a warm-up of 5000 of 15,000 steps.
        optimizer=OptimizerConfig(
            learning_rate=0.0125, warmup=1 / 3, weight_decay=1e-5, sam_rho=0.05, sam_fraction=0.25
        ),
    )
