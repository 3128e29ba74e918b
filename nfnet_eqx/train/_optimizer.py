"""Which optimizer a run has: its settings, the transformation that they stand for, and which parameters it changes.

Another optimizer is a transformation in `nfnet_eqx.optim`, and here its settings and its place in `make_optimizer`.
"""

import dataclasses
from typing import Literal

import optax
from jaxtyping import PyTree

from nfnet_eqx._errors import InputError
from nfnet_eqx._fields import NOT_NEGATIVE, POSITIVE, RATE, Bounds, check_fields
from nfnet_eqx.models import is_below, named_parameters, parameter_mask
from nfnet_eqx.optim import adafactor, adamw, nfnet_sgd, warmup_cosine, warmup_rsqrt


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """SGD with AGC as the papers train NFNets, or an optimizer of the ViT papers, and what fine-tuning adds.

    Every field has a meaning for every kind, so that two networks can be trained alike: AGC may stand before AdamW, and
    the limit of the whole gradient before SGD.

    Attributes:
        kind: SGD with Nesterov momentum; AdamW; or Adafactor with momentum, which needs a quarter of AdamW's memory.
        learning_rate: the peak. SGD's is for a batch of 256 and multiplied by `batch_size / 256` (the linear rule).
            AdamW's and Adafactor's is used as it is, whatever the batch, as the ViT papers state it: 1e-3 and less.
        schedule: what follows the warm-up: a cosine to 0; or `rsqrt`, 1 / sqrt(step) and a linear cool-down to 0.
        warmup: share of the run in which the learning rate rises linearly.
        cooldown: share of the run, its end, in which `rsqrt` goes to 0.
        momentum: of Nesterov's kind in SGD; beta1 of the others.
        beta2: decay of the average of squared gradients in AdamW; in Adafactor the most that it comes to.
        weight_decay: of the weights of convolutions and linear layers, of nothing else. SGD's is an L2 term, added to
            the gradient before the momentum; the others' is decoupled: a step takes `rate * weight_decay` off a weight.
        head_weight_decay: that of the classifier's weight; `None`: the same.
        clipping: AGC's lambda; `None` trains without AGC.
        clipping_eps: AGC's floor of a unit's parameter norm.
        clip_norm: the largest norm of all gradients together, after AGC; `None`: any.
        ema_decay: of the averaged parameters, which are then evaluated and exported; `None`: no average.
        sam_rho: radius of sharpness-aware minimization; 0 turns it off.
        sam_fraction: share of the batch that SAM's ascent gradient is taken on, 1 / a whole number.
        layer_decay: factor on the learning rate for each block between a parameter and the head.
        frozen: parameters that stay as they are, by the start of their names, such as `stem` or `stages.0`.

    Raises:
        InputError: naming every value that is impossible, and why.
    """

    kind: Literal["sgd", "adamw", "adafactor"] = "sgd"
    learning_rate: float = 0.1
    schedule: Literal["cosine", "rsqrt"] = "cosine"
    warmup: float = 5 / 360
    cooldown: float = 0.0
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 2e-5
    head_weight_decay: float | None = None
    clipping: float | None = 0.01
    clipping_eps: float = 1e-3
    clip_norm: float | None = None
    ema_decay: float | None = 0.99999
    sam_rho: float = 0.0
    sam_fraction: float = 1.0
    layer_decay: float = 1.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, _OPTIMIZER_BOUNDS, _faults_together)


def make_schedule(config: OptimizerConfig, *, batch_size: int, total_steps: int) -> optax.Schedule:
    """The learning rate of a run by step."""
    peak = config.learning_rate * (batch_size / 256 if config.kind == "sgd" else 1)
    warmup_steps = min(round(config.warmup * total_steps), total_steps - 1)
    if config.schedule == "cosine":
        return warmup_cosine(peak, warmup_steps, total_steps)
    cooldown_steps = max(round(config.cooldown * total_steps), 1) if config.cooldown else 0
    return warmup_rsqrt(peak, warmup_steps, total_steps, min(cooldown_steps, total_steps - warmup_steps))


def make_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of a run, at the learning rates of `schedule`."""
    settings = {
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "head_weight_decay": config.head_weight_decay,
        "clipping": config.clipping,
        "eps": config.clipping_eps,
        "clip_norm": config.clip_norm,
        "layer_decay": config.layer_decay,
    }
    if config.kind == "sgd":
        return nfnet_sgd(schedule, **settings)
    rule = {"adamw": adamw, "adafactor": adafactor}[config.kind]
    return rule(schedule, beta2=config.beta2, **settings)


def trained_mask(params: PyTree, frozen: tuple[str, ...]) -> PyTree[bool]:
    """True for every parameter that is trained: all but those whose name starts with an entry of `frozen`.

    Raises:
        InputError: an entry names no parameter, or all are frozen.
    """
    names = list(named_parameters(params))
    strange = [entry for entry in frozen if not any(is_below(name, entry) for name in names)]
    if strange:
        raise InputError(f"optimizer.frozen: no parameter's name starts with {', '.join(map(repr, strange))}")
    if all(any(is_below(name, entry) for entry in frozen) for name in names):
        raise InputError(f"optimizer.frozen (={frozen}) leaves nothing to train")
    return parameter_mask(params, lambda name: not any(is_below(name, entry) for entry in frozen))


_OPTIMIZER_BOUNDS = {
    "learning_rate": NOT_NEGATIVE,
    "warmup": RATE,
    "cooldown": Bounds(0, 1),
    "momentum": RATE,
    "beta2": RATE,
    "weight_decay": NOT_NEGATIVE,
    "head_weight_decay": NOT_NEGATIVE,
    "clipping": POSITIVE,
    "clipping_eps": POSITIVE,
    "clip_norm": POSITIVE,
    "ema_decay": RATE,
    "sam_rho": NOT_NEGATIVE,
    "sam_fraction": Bounds(0, 1, above=True),
    "layer_decay": Bounds(0, 1, above=True),
}


def _faults_together(config: OptimizerConfig) -> list[str]:
    faults = []
    share = 1 / config.sam_fraction
    if abs(share - round(share)) > 1e-6:
        faults.append(f"sam_fraction must be 1 / a whole number (1, 0.5, ...), got {config.sam_fraction}")
    if config.schedule == "cosine" and config.cooldown:
        faults.append(
            f"cooldown (={config.cooldown}) is for schedule 'rsqrt', a cosine ends at 0 by itself; set it to 0"
        )
    if config.schedule == "rsqrt" and not config.warmup:
        faults.append("warmup must be positive for schedule 'rsqrt', whose decay is as slow as the warm-up is long")
    if config.warmup + config.cooldown > 1:
        faults.append(f"warmup (={config.warmup}) and cooldown (={config.cooldown}) are more than the whole run")
    if config.kind == "sgd" and config.beta2 != OptimizerConfig.beta2:
        faults.append(f"beta2 (={config.beta2}) is for kind 'adamw' or 'adafactor', SGD has none; leave it out")
    return faults
