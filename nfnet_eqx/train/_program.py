"""What a run computes, in one piece: from a configuration and a network to its first state and its step."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import optax
from jax.sharding import Mesh

from nfnet_eqx.images._preprocess import Preprocess
from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._names import is_parameter, skeleton
from nfnet_eqx.models._nfnet import NFNet
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._mesh import partition_specs, put, shardings
from nfnet_eqx.train._state import TrainState, first_state, make_optimizer, trained_mask
from nfnet_eqx.train._step import Step, make_step


class Program(NamedTuple):
    """What a run computes.

    Attributes:
        static: the network without its arrays; `equinox.combine` puts a state's into it.
        schedule: the learning rate by step.
        abstract: the shapes of the state.
        specs: how it is laid out over the mesh.
        start: the state before the first step, from a network with its parameters.
        step: one step; compiled when it is first called.
    """

    static: NFNet
    schedule: optax.Schedule
    abstract: TrainState
    specs: TrainState
    start: Callable[[NFNet], TrainState]
    step: Step


def make_program(
    config: TrainConfig, network: NFNetConfig, preprocess: Preprocess, mesh: Mesh, *, total_steps: int
) -> Program:
    """Everything of a run that does not depend on its data; nothing is allocated.

    Raises:
        InputError: `config.optimizer.frozen` names no parameter, or all.
    """
    optimizer, schedule = make_optimizer(config.optimizer, batch_size=config.batch_size, total_steps=total_steps)
    params, static = eqx.partition(skeleton(network), is_parameter)
    mask = trained_mask(params, config.optimizer.frozen)
    average = config.optimizer.ema_decay is not None
    first = functools.partial(first_state, optimizer=optimizer, mask=mask, average=average)
    abstract = jax.eval_shape(first, params)
    specs = partition_specs(abstract, mesh, fsdp=config.fsdp)

    def start(model: NFNet) -> TrainState:
        arrays = put(eqx.filter(model, eqx.is_inexact_array), specs.params, mesh)
        return jax.jit(first, out_shardings=shardings(specs, mesh))(arrays)

    step = make_step(static, optimizer, mask, config, preprocess, mesh, specs)
    return Program(static, schedule, abstract, specs, start, step)
