"""What repositories of the Hub hold in these tests."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from nfnet_eqx import InputError, NFNetConfig, from_pretrained, get_config, named_parameters
from nfnet_eqx.checkpoints import Checkpoint, save_pretrained
from nfnet_eqx.checkpoints._tensors import load_tensors, read_safetensors, write_safetensors
from nfnet_eqx.images._preprocess import Preprocess
from nfnet_eqx.models._families import skeleton
from nfnet_eqx.zoo import _fetch
from tests.hub_server import Hub

TIMM = "timm/test_nfnet.r160_in1k"
WEIGHTS = "model.safetensors"

# What a published repository of timm holds: no model_args, and a pickle beside the safetensors.
PUBLISHED_CONFIG = {
    "architecture": "test_nfnet",
    "num_classes": 1000,
    "num_features": 192,
    "pretrained_cfg": {
        "tag": "r160_in1k",
        "custom_load": False,
        "input_size": [3, 160, 160],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 1000,
        "pool_size": [5, 5],
        "first_conv": "stem.conv1",
        "classifier": "head.fc",
    },
}

# A network of a few kilobytes that timm cannot build.
TINY = NFNetConfig(
    depths=(1,), widths=(16,), stem_widths=(8,), stem_strides=(2,), stage_strides=(2,), group_size=8, num_classes=3
)


class Payload:
    """Prints when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (print, ("a payload ran",))


def random_tensors(config: NFNetConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Noise for each parameter of a network."""
    rng = np.random.default_rng(seed)
    shapes = {name: leaf.shape for name, leaf in named_parameters(skeleton(config)).items()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def published(tmp_path: Path) -> dict[str, bytes]:
    """A repository as timm published it."""
    write_safetensors(tmp_path / "m.safetensors", random_tensors(get_config("test_nfnet")), {"format": "pt"})
    return {
        "config.json": json.dumps(PUBLISHED_CONFIG).encode(),
        "model.safetensors": (tmp_path / "m.safetensors").read_bytes(),
        "pytorch_model.bin": pickle.dumps(Payload()),
        "README.md": b"# test_nfnet",
        "modeling.py": b"print('code ran')",
    }


def tiny(
    architecture: str = "tiny", labels: tuple[str, ...] | None = ("cat", "dog", "bird"), seed: int = 0
) -> Checkpoint:
    """A checkpoint of the tiny network."""
    model = load_tensors(TINY, random_tensors(TINY, seed), source="random")
    return Checkpoint(model=model, preprocess=Preprocess(input_size=(32, 32)), labels=labels, architecture=architecture)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def sharded(tmp_path: Path) -> dict[str, bytes]:
    """The tiny network in two shards."""
    save_pretrained(tiny(), tmp_path / "whole")
    tensors = read_safetensors(tmp_path / "whole" / "model.safetensors")
    names = sorted(tensors)
    files = {"config.json": (tmp_path / "whole" / "config.json").read_bytes()}
    weight_map = {}
    for i, part in enumerate((names[:5], names[5:]), 1):
        shard = f"model-0000{i}-of-00002.safetensors"
        write_safetensors(tmp_path / shard, {name: tensors[name] for name in part})
        files[shard] = (tmp_path / shard).read_bytes()
        weight_map |= dict.fromkeys(part, shard)
    return files | {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}


def refusal(hub: Hub, cache: Path, name: str = "me/x", **kwargs: str) -> str:
    """The line with which a load is refused; nothing that it left behind is opened later."""
    with pytest.raises(InputError) as refused:
        from_pretrained(name, endpoint=hub.endpoint, cache_dir=cache, **kwargs)
    assert "\n" not in str(refused.value)
    assert _fetch.cached(name, None, cache) is None
    assert not list(cache.rglob("*.incomplete"))
    return str(refused.value)
