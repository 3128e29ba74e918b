"""Whether a step fits into the memory of the devices: said before the first one, not by a crash in the middle."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from nfnet_eqx._errors import InputError, is_out_of_memory
from nfnet_eqx.images import Preprocess
from nfnet_eqx.train._config import TrainConfig, batch_unit
from nfnet_eqx.train._optimizer import trained_mask
from nfnet_eqx.train._step import Program, mean_loss

# XLA stores less than what differentiation keeps on paper (it fuses, and computes cheap values twice), measured: 0.5 to
# 1.0 of it on a CPU. So much over what is free, nothing helps, and the minutes of compiling are saved.
_BEYOND_DOUBT = 4

_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_2 = _CGROUP / "memory.max", _CGROUP / "memory.current"
_CGROUP_1 = _CGROUP / "memory/memory.limit_in_bytes", _CGROUP / "memory/memory.usage_in_bytes"


def check_activations(program: Program, config: TrainConfig, preprocess: Preprocess, mesh: Mesh) -> None:
    """Refuses, within a second, what is far too large: by the activations that the backward pass is to find again.

    Raises:
        InputError: with what is needed, what is free, and what to change.
    """
    needed, free = _activation_bytes(program, config, preprocess, mesh), free_bytes(mesh)
    if free is not None and needed > _BEYOND_DOUBT * free:
        raise InputError(_too_large(config, f"some {_gigabytes(needed)}", needed, free, mesh))


def check_compiled(step: jax.stages.Compiled, config: TrainConfig, mesh: Mesh) -> None:
    """Refuses a compiled step that cannot run: XLA knows to the byte what it allocates.

    Raises:
        InputError: with what is needed, what is free, and what to change.
    """
    analysis, free = step.memory_analysis(), free_bytes(mesh)
    if analysis is None or free is None:
        return
    needed = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )
    if needed > free:
        raise InputError(_too_large(config, _gigabytes(needed), needed, free, mesh))


@contextlib.contextmanager
def out_of_memory_explained(config: TrainConfig) -> Iterator[None]:
    """Tells an out-of-memory, of a device or of this machine, as what it is: a run that is too large for it."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or "this machine has no more"
        raise InputError(
            f"{config.out}: out of memory ({reason[:200]}); {_remedy(config)}. The last saved state, if there is one, "
            "is kept"
        ) from error


def free_bytes(mesh: Mesh) -> int | None:
    """What a device of this process can still allocate; `None` where nobody says."""
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        free = _free_on_host()
        return None if free is None else free // len(mesh.local_devices)
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None


def _free_on_host() -> int | None:
    """Of the machine's memory, or of the part that a container may take."""
    free = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    for limit, used in (_CGROUP_2, _CGROUP_1):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            total = int(limit.read_text())
            stat = used.with_name("memory.stat").read_text().splitlines()
            cached = sum(int(line.split()[1]) for line in stat if line.startswith(("inactive_file ", "active_file ")))
            free.append(total - max(int(used.read_text()) - cached, 0))
    return min(free, default=None)


def _activation_bytes(program: Program, config: TrainConfig, preprocess: Preprocess, mesh: Mesh) -> int:
    """What one device keeps of the forward pass of one micro-batch, by a trace."""
    params = program.abstract.params
    trained, frozen = eqx.partition(params, trained_mask(params, config.optimizer.frozen))
    count, size = max(config.batch_size // mesh.size // config.micro_batches, 1), config.image_size
    batch = (
        jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((count,), jnp.int32),
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count)),
    )

    def kept(trained: PyTree, frozen: PyTree, batch: tuple[Any, ...]) -> PyTree:
        def loss(trained: PyTree) -> Any:
            model = eqx.combine(trained, frozen, program.static)
            return mean_loss(model, *batch, config=config, preprocess=preprocess)

        return jax.vjp(loss, trained, has_aux=True)[1]

    leaves = jax.tree.leaves(jax.eval_shape(kept, trained, frozen, batch))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _too_large(config: TrainConfig, what: str, needed: int, free: int, mesh: Mesh) -> str:
    devices = f"each of {mesh.size} devices" if mesh.size > 1 else str(mesh.devices.flat[0].device_kind)
    unit, _ = batch_unit(config, mesh.size)
    fitting = config.batch_size * free // needed // unit
    hint = f" (about {unit * 2 ** (fitting.bit_length() - 1)} would fit)" if fitting else ""
    return (
        f"a step of batch_size (={config.batch_size}) at image_size (={config.image_size}) takes {what} of memory on "
        f"{devices}, and {_gigabytes(free)} are free; {_remedy(config, hint)}"
    )


def _remedy(config: TrainConfig, hint: str = "") -> str:
    smaller = f"lower batch_size{hint} or image_size"
    if jax.default_backend() == "cpu":  # where XLA undoes remat, and runs micro-batches side by side (measured)
        return f"{smaller}, or train on an accelerator"
    remat = "" if config.remat else ", set remat"
    return f"{smaller}, raise micro_batches (={config.micro_batches}){remat}, or use more or larger devices"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
