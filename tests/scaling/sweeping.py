"""A sweep of seconds, and processes that work on it."""

import json
import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

# About 1,200 parameters.
NETWORK = """
depths = [1]
widths = [{width}]
stem_widths = [4]
stem_strides = [2]
stage_strides = [1]
group_size = 4
num_features = 8
gamma_in = "activation"
padding = "same"
skipinit = true
attention = "none"
numerics = "deepmind"
"""

TOML = """
data = "{data}"
recipe = "smoke"
epochs = {epochs}
learning_rates = {rates}

[train]
batch_size = 16
checkpoint_every_steps = 2
log_every_steps = 2
num_threads = 1
optimizer.warmup = 0.25

"""


def write_images(folder: Path) -> Path:
    """64 and 16 images of two classes, in the files that CIFAR-10 comes in here."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 64), ("test", 16)):
        labels = np.arange(count, dtype=np.uint8) % 2
        images = random.integers(0, 160, (count, 16, 16, 3)) + 90 * labels[:, None, None, None]
        np.savez(folder / f"{split}.npz", images=images.astype(np.uint8), labels=labels)
    return folder


def write_toml(file: Path, data: Path, *, epochs: str = "[1]", rates: str = "[0.4, 0.8]", widths: str = "8 12") -> Path:
    """A sweep over networks of some widths."""
    models = [
        f'[[models]]\nname = "w{width}"\n[models.network]{NETWORK.format(width=width)}' for width in widths.split()
    ]
    file.write_text(TOML.format(data=data, epochs=epochs, rates=rates) + "\n".join(models))
    return file


def start_worker(file: Path, out: Path, cache: Path) -> BaseProcess:
    """A process that works on a sweep; a server that has loaded everything forks it, so it begins at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nfnet_eqx.scaling", "nfnet_eqx._orbax", "tests.scaling.sweeping"])
    process = context.Process(target=_work, args=(file, out, cache), daemon=True)
    process.start()
    return process


def _work(file: Path, out: Path, cache: Path) -> None:
    import jax

    from nfnet_eqx.scaling import read_sweep, sweep

    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    sweep(read_sweep(file), out, progress=False)


def results(out: Path) -> list[dict[str, Any]]:
    """The rows of a sweep's file without what may differ from one call to another: the seconds."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
