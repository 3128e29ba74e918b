"""Which optimizer a run has: its settings, the transformation that they stand for, and which parameters it changes.

Another optimizer is a transformation in `nfnet_eqx.optim`, and here its settings and its place in `make_optimizer`.
"""

import dataclasses

import optax
from jaxtyping import PyTree

from nfnet_eqx._errors import InputError
from nfnet_eqx._fields import NOT_NEGATIVE, POSITIVE, RATE, Bounds, check_fields
from nfnet_eqx.models import is_below, named_parameters, parameter_mask
from nfnet_eqx.optim import nfnet_sgd, warmup_cosine


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """SGD with AGC as in the papers, and what fine-tuning adds to it.

    Attributes:
        learning_rate: peak for a batch of 256; it is multiplied by `batch_size / 256` (the linear rule).
        warmup: share of the run in which the learning rate rises linearly; a cosine to 0 follows.
        momentum: of Nesterov's kind.
        weight_decay: L2 coefficient of the weights; gains and biases are not decayed.
        clipping: AGC's lambda; `None` trains without AGC.
        clipping_eps: AGC's floor of a unit's parameter norm.
        ema_decay: of the averaged parameters, which are then evaluated and exported; `None`: no average.
        sam_rho: radius of sharpness-aware minimization; 0 turns it off.
        sam_fraction: share of the batch that SAM's ascent gradient is taken on, 1 / a whole number.
        layer_decay: factor on the learning rate for each block between a parameter and the head.
        frozen: parameters that stay as they are, by the start of their names, such as `stem` or `stages.0`.

    Raises:
        InputError: naming every value that is impossible, and why.
    """

    learning_rate: float = 0.1
    warmup: float = 5 / 360
    momentum: float = 0.9
    weight_decay: float = 2e-5
    clipping: float | None = 0.01
    clipping_eps: float = 1e-3
    ema_decay: float | None = 0.99999
    sam_rho: float = 0.0
    sam_fraction: float = 1.0
    layer_decay: float = 1.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, _OPTIMIZER_BOUNDS, _sam_faults)


def make_optimizer(
    config: OptimizerConfig, *, batch_size: int, total_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a run, and its learning rate by step."""
    schedule = warmup_cosine(
        config.learning_rate * batch_size / 256, min(round(config.warmup * total_steps), total_steps - 1), total_steps
    )
    optimizer = nfnet_sgd(
        schedule,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clipping=config.clipping,
        eps=config.clipping_eps,
        layer_decay=config.layer_decay,
    )
    return optimizer, schedule


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
    "momentum": RATE,
    "weight_decay": NOT_NEGATIVE,
    "clipping": POSITIVE,
    "clipping_eps": POSITIVE,
    "ema_decay": RATE,
    "sam_rho": NOT_NEGATIVE,
    "sam_fraction": Bounds(0, 1, above=True),
    "layer_decay": Bounds(0, 1, above=True),
}


def _sam_faults(config: OptimizerConfig) -> list[str]:
    share = 1 / config.sam_fraction
    if abs(share - round(share)) <= 1e-6:
        return []
    return [f"sam_fraction must be 1 / a whole number (1, 0.5, ...), got {config.sam_fraction}"]
