"""Checkpoints from the Hub: the real client against a server on the loopback."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nfnet_eqx import NFNetConfig, get_config, named_parameters
from nfnet_eqx._errors import InputError
from nfnet_eqx._names import skeleton
from nfnet_eqx.convert._tensors import load_tensors, read_safetensors, write_safetensors
from nfnet_eqx.zoo.checkpoint import Checkpoint, save_pretrained
from nfnet_eqx.zoo.hub import from_pretrained
from nfnet_eqx.zoo.preprocess import Preprocess
from tests.hub_server import Hub

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


class Payload:
    def __reduce__(self) -> tuple:
        return (print, ("a payload ran",))


def random_tensors(config: NFNetConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {name: leaf.shape for name, leaf in named_parameters(skeleton(config)).items()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def published(tmp_path: Path) -> dict[str, bytes]:
    write_safetensors(tmp_path / "m.safetensors", random_tensors(get_config("test_nfnet")), {"format": "pt"})
    return {
        "config.json": json.dumps(PUBLISHED_CONFIG).encode(),
        "model.safetensors": (tmp_path / "m.safetensors").read_bytes(),
        "pytorch_model.bin": pickle.dumps(Payload()),
        "README.md": b"# test_nfnet",
        "modeling.py": b"print('code ran')",
    }


def sharded(tmp_path: Path) -> dict[str, bytes]:
    config = NFNetConfig(
        depths=(1,), widths=(16,), stem_widths=(8,), stem_strides=(2,), stage_strides=(2,), group_size=8, num_classes=3
    )
    model = load_tensors(config, random_tensors(config), source="random")
    save_pretrained(Checkpoint(model=model, preprocess=Preprocess(), architecture="t"), tmp_path / "whole")
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


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    files = published(tmp_path_factory.mktemp("published"))
    shards = sharded(tmp_path_factory.mktemp("sharded"))
    stray = {"model.safetensors.index.json": b'{"weight_map": {"x": "../../pytorch_model.bin"}}'}
    repos = {
        "timm/test_nfnet.r160_in1k": files,
        "me/sharded": shards,
        "me/stray-shard": {"config.json": files["config.json"], **stray},
        "me/pickle-only": {name: files[name] for name in ("config.json", "pytorch_model.bin")},
        "me/no-config": {"model.safetensors": files["model.safetensors"]},
        "me/broken": files | {"model.safetensors": b"garbage"},
    }
    with Hub(repos, gated=frozenset({"me/gated"})) as hub:
        yield hub


@pytest.fixture
def asked(hub: Hub) -> list[str]:
    """What the server is asked for during one test."""
    hub.requests.clear()
    return hub.requests


def assert_same_head(a: Checkpoint, b: Checkpoint) -> None:
    name = "head.fc.weight"
    np.testing.assert_array_equal(named_parameters(a.model)[name], named_parameters(b.model)[name])


def test_a_published_checkpoint_opens_by_one_line(hub: Hub, asked: list[str], tmp_path: Path) -> None:
    ckpt = from_pretrained("timm/test_nfnet.r160_in1k", endpoint=hub.endpoint, cache_dir=tmp_path)
    commit = hub.commit("timm/test_nfnet.r160_in1k")
    assert ckpt.source == f"timm/test_nfnet.r160_in1k@{commit}"
    assert (ckpt.architecture, ckpt.config.num_classes, ckpt.about) == ("test_nfnet", 1000, {"tag": "r160_in1k"})
    assert (ckpt.preprocess.input_size, ckpt.preprocess.crop_pct) == ((160, 160), 0.95)
    assert ckpt.labels is not None and len(ckpt.labels) == 1000
    assert {line.split()[-1] for line in asked} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/test_nfnet.r160_in1k", "timm/test_nfnet.r160_in1k@v1", "test_nfnet.r160_in1k"]
)
def test_every_spelling_of_an_id_is_the_same_repository(name: str, hub: Hub, tmp_path: Path) -> None:
    ckpt = from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert ckpt.source == f"timm/test_nfnet.r160_in1k@{hub.commit('timm/test_nfnet.r160_in1k')}"


def test_what_is_in_the_cache_needs_no_network(hub: Hub, asked: list[str], tmp_path: Path) -> None:
    name, commit = "timm/test_nfnet.r160_in1k", hub.commit("timm/test_nfnet.r160_in1k")
    first = from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path)
    asked.clear()
    offline = from_pretrained(name, endpoint="http://127.0.0.1:9", cache_dir=tmp_path, local_files_only=True)
    pinned = from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path, revision=commit)
    assert asked == []
    for ckpt in (offline, pinned):
        assert ckpt.source == first.source
        assert_same_head(ckpt, first)
    from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert asked == [f"HEAD {name}@main config.json"], "one question: is it still this commit?"


def test_shards_come_from_the_hub(hub: Hub, asked: list[str], tmp_path: Path) -> None:
    ckpt = from_pretrained("me/sharded", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert ckpt.config.num_classes == 3
    offline = from_pretrained("me/sharded", cache_dir=tmp_path, local_files_only=True)
    assert_same_head(offline, ckpt)


def test_the_classes_can_be_changed_on_the_way(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ckpt = from_pretrained("me/sharded", num_classes=9, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert ckpt.config.num_classes == 9
    assert "the classifier for 3 classes was replaced" in caplog.text


REFUSED = {
    "me/nothing": "me/nothing: no such repository on the Hub",
    "me/sharded@v9": "me/sharded@v9: the repository has no such revision",
    "me/gated": "me/gated: access must be granted",
    "me/pickle-only": "me/pickle-only: the repository has no model.safetensors; other formats are never fetched",
    "me/no-config": "me/no-config: the repository has no config.json",
    "me/stray-shard": "1 shards are not the names of safetensors files",
    "me/broken": "model.safetensors: 7 bytes are no safetensors file",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_opened_is_refused_with_the_reason(
    name: str, hub: Hub, asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=REFUSED[name]):
        from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert not [line for line in asked if line.endswith((".bin", ".py"))]
    assert "ran" not in capsys.readouterr().out


def test_two_revisions_are_one_too_many(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'me/sharded@v1' names the revision 'v1', and revision='main' another"):
        from_pretrained("me/sharded@v1", revision="main", endpoint=hub.endpoint, cache_dir=tmp_path)


def test_offline_and_not_in_the_cache_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="me/sharded: not in the cache, and the Hub was not asked or not reached"):
        from_pretrained("me/sharded", endpoint="http://127.0.0.1:9", cache_dir=tmp_path, local_files_only=True)
