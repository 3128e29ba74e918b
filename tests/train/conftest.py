"""A network and data small enough to train in seconds: cut-outs of real photos, to be told apart by their photo."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest
from PIL import Image

import nfnet_eqx as nfx
from nfnet_eqx.data import Augment
from nfnet_eqx.train import OptimizerConfig, TrainConfig
from tests.train.tiny import PREPROCESS, TINY

PHOTOS = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny network, with random parameters."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = eqx.filter_jit(nfx.NFNet)(TINY, key=jr.key(7))
    labels = ("boats", "chelsea", "german_shepherd", "horses")
    nfx.save_pretrained(
        nfx.Checkpoint(model=model, preprocess=PREPROCESS, labels=labels, architecture="tiny_nfnet"), folder
    )
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 and 40 cut-outs of four photos, in the files that CIFAR-10 comes in here."""
    folder = tmp_path_factory.mktemp("pictures")
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(PHOTOS.glob("*.jpg"))[:4]]
    random = np.random.default_rng(0)
    for split, count in (("train", 96), ("test", 40)):
        images = []
        for i in range(count):
            top, left = (random.integers(0, size - 24) for size in photos[i % 4].shape[:2])
            images.append(photos[i % 4][top : top + 24, left : left + 24])
        np.savez(folder / f"{split}.npz", images=np.stack(images), labels=np.arange(count, dtype=np.uint8) % 4)
    return folder


@pytest.fixture
def config(model_folder: Path, data_folder: Path, tmp_path: Path) -> TrainConfig:
    """Twelve steps, in two epochs, with everything that is random switched on."""
    return TrainConfig(
        model=str(model_folder),
        data=data_folder,
        out=tmp_path / "run",
        image_size=16,
        eval_size=16,
        epochs=2,
        batch_size=16,
        drop_rate=0.2,
        stochastic_depth=0.25,
        augment=Augment(crop="padded", mixup=0.2, cutmix=True),
        optimizer=OptimizerConfig(learning_rate=1.0, warmup=0.25, clipping_eps=1.0, ema_decay=0.9),
        precision="float32",
        log_every_steps=4,
        num_threads=2,
    )


@pytest.fixture
def changed() -> Callable[..., TrainConfig]:
    """A function: a config with other values, the optimizer's and the augmentation's too."""

    def changed(config: TrainConfig, **values: object) -> TrainConfig:
        for part in ("optimizer", "augment"):
            names = {field.name for field in dataclasses.fields(getattr(config, part))}
            inner = {name: values.pop(name) for name in list(values) if name in names}
            values[part] = dataclasses.replace(getattr(config, part), **inner)
        return dataclasses.replace(config, **values)

    return changed
