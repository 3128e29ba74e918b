"""What a run carries from step to step, and one step: gather, differentiate, reduce; then the optimizer.

Loss and gradient run inside `jax.shard_map`, each device on its own pictures: left to XLA's partitioner, a grouped
convolution would gather the whole batch on every device. Clipping, momentum and averages stand outside, where an array
is whole whatever its layout, so that AGC's norms are right under FSDP without a thought.

All randomness belongs to a *position of the global batch*, and pictures are mixed with their neighbour only: what a
step computes does not depend on how the batch is divided over devices and hosts, up to the order of summation.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8, UInt32

from nfnet_eqx.data import mix
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import Network, NetworkConfig, init_network, is_parameter, parameter_name, skeleton
from nfnet_eqx.optim import sam_ascent, update_ema
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._mesh import (
    AXIS,
    BATCH,
    REPLICATED,
    gather,
    laid_out,
    partition_specs,
    put,
    reduce_mean,
    shardings,
)
from nfnet_eqx.train._optimizer import make_optimizer, make_schedule, trained_mask

Images = UInt8[Array, "b s s 3"]
Labels = Int[Array, " b"]
Metrics = dict[str, Float[Array, ""]]


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


class Step:
    """One step of a run: `step(state, images, labels)` gives the next state and metrics, and donates the state.

    What runs of one network differ in, the learning rate and the seed, is an argument of the compiled function: so a
    sweep over learning rates and lengths compiles it once (with JAX's persistent cache; see `make_step`).

    Args:
        function: `(state, images, labels, rate, seed)`, a `jax.stages.Wrapped` or `jax.stages.Compiled`.
        schedule: the learning rate by step.
        seed: of the run, on every device.
    """

    def __init__(self, function: Any, schedule: Callable[..., Any], seed: UInt32[Array, ""]):
        self.function, self._schedule, self._seed = function, schedule, seed

    def __call__(self, state: TrainState, images: Images, labels: Labels) -> tuple[TrainState, Metrics]:
        return self.function(state, images, labels, self._schedule(state.step), self._seed)

    def compiled(self, state: TrainState, batch: PyTree, mesh: Mesh) -> "Step":
        """The step, compiled for the shapes of its arguments; `function` is then a `jax.stages.Compiled`."""
        numbers = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.uint32)
        numbers = laid_out(numbers, (REPLICATED, REPLICATED), mesh)
        return Step(self.function.lower(state, *batch, *numbers).compile(), self._schedule, self._seed)


class Program(NamedTuple):
    """What a run computes.

    Attributes:
        static: the network without its arrays; `equinox.combine` puts a state's into it.
        schedule: the learning rate by step.
        abstract: the shapes of the state.
        specs: how it is laid out over the mesh.
        start: the state before the first step, from a network with its parameters; `None`: random ones.
        step: one step; compiled when it is first called, or ahead of that (`compile_step`).
    """

    static: Network
    schedule: optax.Schedule
    abstract: TrainState
    specs: TrainState
    start: Callable[[Network | None], TrainState]
    step: Step


def make_program(
    config: TrainConfig, network: NetworkConfig, preprocess: Preprocess, mesh: Mesh, *, total_steps: int
) -> Program:
    """Everything of a run that does not depend on its data; nothing is allocated.

    Raises:
        InputError: `config.optimizer.frozen` names no parameter, or all.
    """
    schedule = make_schedule(config.optimizer, batch_size=config.batch_size, total_steps=total_steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    params, static = eqx.partition(skeleton(network), is_parameter)
    mask = trained_mask(params, config.optimizer.frozen)
    average = config.optimizer.ema_decay is not None

    def first(params: PyTree) -> TrainState:
        if config.head_bias:  # the classifier is a fresh one, else `TrainConfig` refuses it
            params = _filled(params, f"{network.classifier}.bias", config.head_bias)
        return first_state(params, optimizer, mask, average=average)

    abstract = jax.eval_shape(first, params)
    specs = partition_specs(abstract, mesh, fsdp=config.fsdp)

    def random(seed: UInt32[Array, ""]) -> PyTree:
        return eqx.filter(init_network(network, key=jr.key(seed)), is_parameter)

    def start(model: Network | None) -> TrainState:
        if model is None:  # each device makes its own part
            arrays = jax.jit(random, out_shardings=shardings(specs.params, mesh))(np.uint32(config.seed))
        else:
            arrays = put(eqx.filter(model, is_parameter), specs.params, mesh)
        return jax.jit(first, out_shardings=shardings(specs, mesh))(arrays)

    step = make_step(static, mask, config, preprocess, mesh, specs)
    rate = jax.jit(schedule, out_shardings=shardings(REPLICATED, mesh))
    seed = put(np.asarray(config.seed, np.uint32), REPLICATED, mesh)
    return Program(static, schedule, abstract, specs, start, Step(step, rate, seed))


def compile_step(program: Program, config: TrainConfig, mesh: Mesh) -> Step:
    """The step, compiled before there is a state or a batch."""
    state = laid_out(program.abstract, program.specs, mesh)
    images = jax.ShapeDtypeStruct((config.batch_size, config.image_size, config.image_size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    return program.step.compiled(state, laid_out((images, labels), (BATCH, BATCH), mesh), mesh)


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


def make_step(
    static: Network,
    mask: PyTree,
    config: TrainConfig,
    preprocess: Preprocess,
    mesh: Mesh,
    specs: TrainState,
) -> jax.stages.Wrapped:
    """The compiled step of a run: state and global batch to the next state, `loss`, `top1`, `grad_norm`, `param_norm`.

    It takes `(state, images, labels, rate, seed)`, and donates the state. Learning rate and seed are no constants of
    it, nor is the run's length: what is compiled is the same for all of them. Under SAM the gradient is taken at
    `params + rho * g / |g|`, with `g` the gradient of (a part of) the same batch over *all* devices; the paper's is
    that of each device alone, which would make a run depend on their number.

    References:
        2102.06171, sections 4.1 and 6.1, appendices A.1 and A.4.
    """
    trained_specs, frozen_specs = eqx.partition(specs.params, mask)

    def sharded_gradient(every: int) -> Callable[..., tuple[PyTree, Metrics]]:
        """Mean gradient and metrics over every `every`-th pair of the batch."""
        local = functools.partial(
            _gradient, static=static, config=config, preprocess=preprocess, every=every,
            trained_specs=trained_specs, frozen_specs=frozen_specs,
            # XLA's CPU convolutions run on one thread, many times slower, inside a loop (scan's own unrolling is one).
            unroll=mesh.devices.flat[0].platform == "cpu",
        )  # fmt: skip
        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(trained_specs, frozen_specs, BATCH, BATCH, REPLICATED, REPLICATED),
            out_specs=(trained_specs, REPLICATED),
        )

    gradient = sharded_gradient(1)
    sam = config.optimizer.sam_rho > 0
    ascent_gradient = sharded_gradient(round(1 / config.optimizer.sam_fraction)) if sam else gradient
    ascent = sam_ascent(config.optimizer.sam_rho)

    def step(
        state: TrainState, images: Images, labels: Labels, rate: Float[Array, ""], seed: UInt32[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        optimizer = make_optimizer(config.optimizer, lambda _: rate)
        trained, frozen = eqx.partition(state.params, mask)
        at = trained
        if sam:
            grads, _ = ascent_gradient(trained, frozen, images, labels, state.step, seed)
            perturbation, _ = ascent.update(grads, ascent.init(trained))
            at = optax.apply_updates(trained, perturbation)
        grads, metrics = gradient(at, frozen, images, labels, state.step, seed)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = eqx.combine(optax.apply_updates(trained, updates), frozen)
        decay = config.optimizer.ema_decay
        ema = None if decay is None else update_ema(state.ema, params, state.step, decay)
        metrics |= {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        return TrainState(step=state.step + 1, params=params, ema=ema, opt_state=opt_state), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings(specs, mesh), shardings(REPLICATED, mesh)))


def _gradient(
    trained: PyTree,
    frozen: PyTree,
    images: Images,
    labels: Labels,
    step: Int[Array, ""],
    seed: UInt32[Array, ""],
    *,
    static: Network,
    config: TrainConfig,
    preprocess: Preprocess,
    every: int,
    trained_specs: PyTree,
    frozen_specs: PyTree,
    unroll: bool,
) -> tuple[PyTree, Metrics]:
    """Inside `shard_map`: this device's pictures in `config.micro_batches` parts, then the mean over the devices."""
    first = jax.lax.axis_index(AXIS) * len(images)
    step_key = jr.fold_in(jr.key(seed), step)
    keys = jax.vmap(functools.partial(jr.fold_in, step_key))(first + jnp.arange(len(images)))
    batch = _every_pair((images, labels, keys), every)
    count = config.micro_batches
    parts = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), batch)

    params, rest = gather(trained, trained_specs), gather(frozen, frozen_specs)

    def loss(params: PyTree, part: tuple[Any, ...]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return mean_loss(eqx.combine(params, rest, static), *part, config=config, preprocess=preprocess)

    def add(total: PyTree, part: tuple[Any, ...]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss, has_aux=True)(params, part)), None

    zero = jax.lax.pcast(jnp.zeros(()), AXIS, to="varying")
    total = (zero, zero), jax.tree.map(lambda p: jnp.zeros_like(p) + zero.astype(p.dtype), params)
    if unroll:
        for i in range(count):
            total, _ = add(total, jax.tree.map(operator.itemgetter(i), parts))
    else:
        total, _ = jax.lax.scan(add, total, parts)
    (total_loss, hits), grads = jax.tree.map(lambda a: a / jnp.asarray(count, a.dtype), total)
    return reduce_mean(grads, trained_specs), {
        "loss": jax.lax.pmean(total_loss, AXIS),
        "top1": jax.lax.pmean(100 * hits, AXIS),
    }


def mean_loss(
    model: Network,
    images: Images,
    labels: Labels,
    keys: Key[Array, " b"],
    *,
    config: TrainConfig,
    preprocess: Preprocess,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean of `config.loss` over some pictures, and the share of them whose (main) class is the top one."""
    if config.remat:
        model = model.with_remat()
    mix_keys, model_keys = (jax.vmap(functools.partial(jr.fold_in, data=i))(keys) for i in range(2))
    mean, std = (jnp.asarray(value, jnp.float32)[None, None, None] for value in (preprocess.mean, preprocess.std))
    x = (images.astype(jnp.float32) / 255 - mean) / std
    targets = optax.smooth_labels(jax.nn.one_hot(labels, model.config.num_classes), config.label_smoothing)
    x, targets = mix(x, targets, mix_keys, mixup=config.augment.mixup, cutmix=config.augment.cutmix)
    x = x.transpose(0, 3, 1, 2).astype(config.precision)
    logits = jax.vmap(lambda x, key: model(x, key=key))(x, model_keys).astype(jnp.float32)
    hits = jnp.argmax(logits, axis=1) == jnp.argmax(targets, axis=1)
    if config.loss == "softmax":
        losses = optax.softmax_cross_entropy(logits, targets)
    else:
        losses = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=1)
    return jnp.mean(losses), jnp.mean(hits.astype(jnp.float32))


def _filled(params: PyTree, name: str, value: float) -> PyTree:
    """The parameters with the one of that name filled with a number."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full_like(leaf, value) if parameter_name(path) == name else leaf, params
    )


def _every_pair(batch: PyTree, every: int) -> PyTree:
    """Every `every`-th pair of neighbours, so that mixed pictures stay together."""
    if every == 1:
        return batch
    return jax.tree.map(lambda a: a.reshape(-1, 2, *a.shape[1:])[::every].reshape(-1, *a.shape[1:]), batch)
