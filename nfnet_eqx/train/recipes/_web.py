"""Pre-training on a very large, weakly labelled set of pictures (JFT in the papers), for fine-tuning later.

    nfnet-eqx train --recipe web --model dm_nfnet_f3 --data web --out runs/f3_web --epochs 1

References:
    2310.16764, section 2; 2102.06171, section 6.2 and appendix A.5, whose settings it inherits.
"""

from pathlib import Path

from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._optimizer import OptimizerConfig


def web(data: Path, out: Path, model: str = "dm_nfnet_f0") -> TrainConfig:
    """One pass at 224 pixels and batch 4096: weight decay 1e-6, crops and flips only, no averaged parameters.

    The paper's budgets are 0.25 to 8 epochs. Its best learning rate is 1.6 for small ones (the linear rule) and falls
    slowly with more epochs and larger models, never below 0.4: `--optimizer.learning-rate 0.05` halves it. The paper
    states neither warm-up, dropout nor label smoothing of the pre-training; here they are 1 %, none and none.
    """
    return TrainConfig(
        model=model,
        data=data,
        out=out,
        image_size=224,
        eval_size=256,
        epochs=1,
        batch_size=4096,
        label_smoothing=0.0,
        drop_rate=0.0,
        stochastic_depth=0.0,
        optimizer=OptimizerConfig(warmup=0.01, weight_decay=1e-6, ema_decay=None),
        eval_every_epochs=0.05,
    )
