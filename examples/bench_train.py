"""What a training step costs, and what the loop adds to it.

    make bench-train      # this, and the input pipeline (bench_pipeline.py)

On a CPU: the shipped checkpoint's recipe, and the share of the work that each of eight simulated devices does. On an
accelerator: NFNet-F0 and F3 at their training sizes in bfloat16, on all devices, against the matrix products that the
same devices reach. The loop's own time is that of a run whose step computes nothing: reading the batch, laying it out
over the devices, and the metrics; decoding goes on beside it, in threads.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import AxisType, Mesh

import nfnet_eqx as nfx
from nfnet_eqx.data import Arrays, train_stream
from nfnet_eqx.train import Program, TrainConfig, Window, find_start, make_program, put_batch
from nfnet_eqx.train.recipes import cifar10, imagenet


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is measured.

    Attributes:
        steps: how many steps are timed; the median counts.
        batch: pictures in a step for each accelerator.
    """

    steps: int = 20
    batch: int = 64


def main(bench: Bench) -> None:
    """Prints the tables."""
    jax.config.update("jax_num_cpu_devices", 8)  # must come before the first device is asked for
    device = jax.devices()[0]
    print(f"{device.device_kind}, jax {jax.__version__}")
    if device.platform == "cpu":
        config = cifar10()
        seconds = time_step(config, mesh_of(1), bench.steps)
        overhead = time_loop(config, mesh_of(1))
        print(f"{'nfnet_cifar10, 32 px, batch 64, float32':44}{config.batch_size / seconds:8.0f} img/s")
        print(f"{'the loop without its step':44}{1e3 * overhead:8.2f} ms, {100 * overhead / seconds:.2f} % of a step")
        print_shares()
        return
    mesh = mesh_of(jax.device_count())
    peak = time_products(mesh.size)
    for name in ("dm_nfnet_f0", "dm_nfnet_f3"):
        config = dataclasses.replace(imagenet(Path(), Path(), name), batch_size=bench.batch * mesh.size)
        seconds = time_step(config, mesh, bench.steps)
        rate = config.batch_size / seconds
        work = (
            6 * nfx.count(nfx.get_config(name), config.image_size or 0).macs * rate
        )  # forward and backward, 2 FLOPs each
        print(
            f"{f'{name}, {config.image_size} px, bfloat16':44}{rate:8.0f} img/s, {100 * work / peak:.0f} % of products"
        )


def mesh_of(devices: int) -> Mesh:
    """The first so many devices."""
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def prepare(config: TrainConfig, mesh: Mesh) -> tuple[Program, Any, tuple[Any, Any]]:
    """A run's program, its first state, and a batch on its devices."""
    start, _ = find_start(config, num_classes=10 if config.image_size == 32 else 1000)
    program = make_program(config, start.config, start.preprocess, mesh, total_steps=1000)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (config.batch_size, *start.preprocess.input_size, 3), np.uint8)
    labels = random.integers(0, start.config.num_classes, config.batch_size, np.int32)
    return program, program.start(None), put_batch((images, labels), mesh)


def time_step(config: TrainConfig, mesh: Mesh, steps: int) -> float:
    """Median seconds of a step whose batch is on the devices already."""
    program, state, batch = prepare(config, mesh)

    def step() -> None:
        nonlocal state
        state, metrics = program.step(state, *batch)
        jax.block_until_ready((state, metrics))

    return median_seconds(step, steps)


def time_loop(config: TrainConfig, mesh: Mesh) -> float:
    """Median seconds of what the loop does around a step."""
    random = np.random.default_rng(0)
    size = config.image_size or 32
    images = random.integers(0, 256, (10_000, size, size, 3), np.uint8)
    source = Arrays(images, random.integers(0, 10, len(images)), None, "random")
    batches = train_stream(source, config.augment, image_size=size, batch_size=config.batch_size, seed=0, num_threads=2)
    window = Window(config, lambda step: 0.0, lambda: None)
    metrics = {name: jnp.zeros(()) for name in ("loss", "top1", "grad_norm", "param_norm")}
    steps = iter(range(1, 10**6))

    def turn() -> None:
        batch = next(batches)
        put_batch((batch.image, batch.label), mesh)
        window.add(next(steps), metrics, int(batch.broken.sum()))
        time.sleep(0.02)  # a step's time, in which the threads get ahead

    try:
        return median_seconds(turn, 100) - 0.02
    finally:
        batches.close()


def print_shares() -> None:
    """The work of each of eight devices, against that of one alone."""
    config = dataclasses.replace(cifar10(), batch_size=256)
    alone = flops(config, 1)
    for layout, fsdp in (("data parallel", False), ("FSDP", True)):
        share = flops(dataclasses.replace(config, fsdp=fsdp), 8) / alone
        print(f"{f'{layout}, 8 devices: work of each':44}{8 * share:8.3f} / 8 of one device's")


def flops(config: TrainConfig, devices: int) -> float:
    """Of one device, by XLA's count."""
    mesh = mesh_of(devices)
    program, state, batch = prepare(config, mesh)
    costs = program.step.compiled(state, batch, mesh).function.cost_analysis() or {}
    return costs["flops"]


def time_products(devices: int) -> float:
    """FLOPs a second that all devices reach in bfloat16 matrix products."""
    size = 8192
    x = jnp.ones((size, size), jnp.bfloat16)
    product = jax.jit(lambda x: x @ x)
    return devices * 2 * size**3 / median_seconds(lambda: jax.block_until_ready(product(x)), 20)


def median_seconds(function: Callable[[], Any], times: int) -> float:
    """Of one call, after three that compile and warm up."""
    for _ in range(3):
        function()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))
