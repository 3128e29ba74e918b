"""What a training run carries from step to step, and how it starts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._names import named_parameters
from nfnet_eqx.models._surgery import parameter_mask
from nfnet_eqx.optim import nfnet_sgd, warmup_cosine
from nfnet_eqx.train._config import OptimizerConfig


class TrainState(eqx.Module):
    """Everything that a step changes: nothing else has to be saved for an exact resume.

    Attributes:
        step: steps taken.
        params: the network's arrays, those that stay frozen too.
        ema: their average; `None` where none is kept.
        opt_state: of the arrays that are trained.
    """

    step: Int[Array, ""]
    params: PyTree
    ema: PyTree
    opt_state: PyTree


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
    strange = [entry for entry in frozen if not any(_below(name, entry) for name in names)]
    if strange:
        raise InputError(f"optimizer.frozen: no parameter's name starts with {', '.join(map(repr, strange))}")
    if all(any(_below(name, entry) for entry in frozen) for name in names):
        raise InputError(f"optimizer.frozen (={frozen}) leaves nothing to train")
    return parameter_mask(params, lambda name: not any(_below(name, entry) for entry in frozen))


def first_state(
    params: PyTree, optimizer: optax.GradientTransformation, mask: PyTree[bool], *, average: bool
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # A copy: the same buffers in both trees cannot be donated.
        ema=jax.tree.map(jnp.copy, params) if average else None,
        opt_state=optimizer.init(eqx.filter(params, mask)),
    )


def _below(name: str, entry: str) -> bool:
    """Whether `entry` is the name or the start of its path: `stages.1` covers `stages.1.0`, not `stages.10`."""
    return name == entry or name.startswith(entry.removesuffix(".") + ".")
