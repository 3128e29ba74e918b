"""Checkpoints from the Hub: the real client against a server on the loopback."""

import doctest
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nfnet_eqx import from_pretrained, named_parameters, save_pretrained
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints._checkpoint import Checkpoint
from nfnet_eqx.zoo._hub import pull
from tests.hub_server import Hub
from tests.zoo.repos import TIMM, files_of, published, sharded, tiny

DEAD = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    files = published(tmp_path_factory.mktemp("published"))
    whole = tmp_path_factory.mktemp("whole")
    save_pretrained(tiny(), whole)
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.add(TIMM, files)
        hub.tag(TIMM, "v1")
        hub.add("me/whole", files_of(whole))
        hub.add("me/sharded", sharded(tmp_path_factory.mktemp("sharded")))
        stray = {"model.safetensors.index.json": b'{"weight_map": {"x": "../../pytorch_model.bin"}}'}
        hub.add("me/stray-shard", {"config.json": files["config.json"], **stray})
        hub.add("me/pickle-only", {name: files[name] for name in ("config.json", "pytorch_model.bin")})
        hub.add("me/no-config", {"model.safetensors": files["model.safetensors"]})
        hub.add("me/broken", files | {"model.safetensors": b"garbage"})
        hub.add("me/hostile", files | {"../../evil.json": b"{}"})
        hub.add("me/absolute", files | {"/etc/evil.json": b"{}"})
        hub.add(
            "me/huge",
            files | {"config.json": files["config.json"].replace(b'"num_classes": 1000', b'"num_classes": 4e9')},
        )
        hub.add("me/gated", files, gated=True)
        hub.add("me/private", files, private=True)
        yield hub


@pytest.fixture
def asked(hub: Hub) -> list[str]:
    """What the server is asked for during one test."""
    hub.requests.clear()
    return hub.requests


def resolved(asked: list[str]) -> list[str]:
    """The files among the requests, as `"METHOD name"`."""
    return [f"{line.split()[0]} {line.split('?')[0].rsplit('/', 1)[-1]}" for line in asked if "/resolve/" in line]


def assert_same(a: Checkpoint, b: Checkpoint) -> None:
    theirs = named_parameters(b.model)
    for name, array in named_parameters(a.model).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_a_published_checkpoint_opens_by_one_line(hub: Hub, asked: list[str], tmp_path: Path) -> None:
    ckpt = from_pretrained(TIMM, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert (ckpt.source.name, ckpt.source.commit) == (TIMM, hub.commit(TIMM))
    assert str(ckpt.source) == f"{TIMM}@{hub.commit(TIMM)}"
    assert (ckpt.architecture, ckpt.config.num_classes, ckpt.about) == ("test_nfnet", 1000, {"tag": "r160_in1k"})
    assert (ckpt.preprocess.input_size, ckpt.preprocess.crop_pct) == ((160, 160), 0.95)
    assert ckpt.labels is not None and len(ckpt.labels) == 1000
    # The first HEAD of each file is ours: what it says is looked at before the client asks for it and believes it.
    assert resolved(asked) == [
        "HEAD config.json",
        "HEAD config.json",
        "GET config.json",
        "HEAD model.safetensors",
        "HEAD model.safetensors",
        "GET model.safetensors",
    ]


def test_the_source_names_the_bytes_that_were_read(hub: Hub, tmp_path: Path) -> None:
    import hashlib

    ckpt = from_pretrained("me/whole", endpoint=hub.endpoint, cache_dir=tmp_path)
    files = hub.files("me/whole")
    assert ckpt.source.sha256 == {
        name: hashlib.sha256(files[name]).hexdigest() for name in ("config.json", "model.safetensors")
    }


@pytest.mark.parametrize("name", [f"hf-hub:{TIMM}", f"{TIMM}@v1", "test_nfnet.r160_in1k", "test_nfnet.r160_in1k@main"])
def test_every_spelling_of_an_id_is_the_same_repository(name: str, hub: Hub, tmp_path: Path) -> None:
    ckpt = from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert str(ckpt.source) == f"{TIMM}@{hub.commit(TIMM)}"


def test_what_is_in_the_cache_is_opened_without_a_word_to_the_network(
    hub: Hub, asked: list[str], tmp_path: Path
) -> None:
    first = from_pretrained(TIMM, endpoint=hub.endpoint, cache_dir=tmp_path)
    asked.clear()
    start = time.perf_counter()
    for kwargs in ({}, {"local_files_only": True}, {"revision": hub.commit(TIMM)}, {"revision": "main"}):
        assert_same(from_pretrained(TIMM, endpoint=DEAD, cache_dir=tmp_path, **kwargs), first)
    assert time.perf_counter() - start < 5, "the client alone waits 23 s for a network that is not there"
    assert asked == []


def test_pull_asks_for_what_is_new(hub: Hub, tmp_path: Path) -> None:
    for seed in (0, 1):
        save_pretrained(tiny(seed=seed), tmp_path / str(seed))
    hub.add("me/moving", files_of(tmp_path / "0"))
    old = from_pretrained("me/moving", endpoint=hub.endpoint, cache_dir=tmp_path)
    commit = hub.add("me/moving", files_of(tmp_path / "1"))
    assert from_pretrained("me/moving", endpoint=hub.endpoint, cache_dir=tmp_path).source == old.source
    pulled = pull("me/moving", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert (pulled.origin.commit, pulled.folder.name) == (commit, commit)
    new = from_pretrained("me/moving", endpoint=DEAD, cache_dir=tmp_path)
    assert new.source == pulled.origin
    assert_same(new, tiny(seed=1))


def test_shards_come_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    ckpt = from_pretrained("me/sharded", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert_same(ckpt, tiny())
    assert len(ckpt.source.sha256) == 4
    assert_same(from_pretrained("me/sharded", cache_dir=tmp_path, endpoint=DEAD), ckpt)


def test_a_cache_that_lacks_a_shard_is_not_taken_for_whole(hub: Hub, asked: list[str], tmp_path: Path) -> None:
    folder = pull("me/sharded", endpoint=hub.endpoint, cache_dir=tmp_path).folder
    (folder / "model-00002-of-00002.safetensors").unlink()
    asked.clear()
    assert_same(from_pretrained("me/sharded", endpoint=hub.endpoint, cache_dir=tmp_path), tiny())
    assert asked, "the missing shard was not asked for"


def test_the_classes_and_channels_can_be_changed_on_the_way(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ckpt = from_pretrained("me/whole", num_classes=9, in_channels=1, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert (ckpt.config.num_classes, ckpt.config.in_channels, ckpt.labels) == (9, 1, None)
    assert "the classifier for 3 classes was replaced" in caplog.text


@pytest.mark.parametrize("num_classes", [None, 9])
def test_parameters_go_where_they_are_wanted_in_the_dtype_that_is_wanted(
    num_classes: int | None, hub: Hub, tmp_path: Path
) -> None:
    device = jax.devices()[3]
    mesh = jax.make_mesh((4,), ("data",))
    for where in (device, NamedSharding(mesh, PartitionSpec())):
        ckpt = from_pretrained(
            "me/whole",
            num_classes=num_classes,
            dtype=jnp.bfloat16,
            device=where,
            endpoint=hub.endpoint,
            cache_dir=tmp_path,
        )
        for name, array in named_parameters(ckpt.model).items():
            assert array.dtype == jnp.bfloat16, name
            assert array.devices() == ({device} if where is device else set(mesh.devices.flat)), name


REFUSED = {
    "me/nothing": "me/nothing: no such repository on the Hub",
    "me/private": "me/private: no such repository on the Hub .or a private one: `hf auth login`",
    "me/sharded@v9": "me/sharded@v9: the repository has no such revision",
    "me/gated": "me/gated: access must be granted on its page first; then `hf auth login`",
    "me/pickle-only": "me/pickle-only: the repository has no model.safetensors; other formats are never fetched",
    "me/no-config": "me/no-config: the repository has no config.json",
    "me/stray-shard": "1 shards are not the names of safetensors files",
    "me/broken": "model.safetensors: 7 bytes are no safetensors file",
    "me/a--b": "me/a--b.*Cannot have --",
    "me/..": "'me/..'",
    "me/hostile": r"me/hostile: the repository lists '../../evil.json', a name that leads out of it",
    "me/absolute": r"me/absolute: the repository lists '/etc/evil.json', a name that leads out of it",
    "me/huge": "num_classes",
    "dm_nfnet_f0": "'dm_nfnet_f0' is an architecture.*give 'dm_nfnet_f0.dm_in1k'",
    "dm_nfnet_f7": "'dm_nfnet_f7' is an architecture.*none of them are published",
    "dm_nfnet_f0.deepmind": "is not on the Hub: fetch https://.*F0_haiku.npz and give the path of the file",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_opened_is_refused_with_the_reason(
    name: str, hub: Hub, asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=REFUSED[name]) as refused:
        from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert "\n" not in str(refused.value)
    assert not [line for line in resolved(asked) if line.endswith((".bin", ".py", "evil.json"))]
    assert "ran" not in capsys.readouterr().out


def test_what_is_never_read_is_noted(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="nfnet_eqx")
    pulled = pull(TIMM, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert sorted(pulled.ignored) == ["modeling.py", "pytorch_model.bin"]
    assert f"{TIMM}: ignored " in caplog.text and "pytorch_model.bin" in caplog.text


@pytest.mark.parametrize("kwargs", [{"dtype": "int32"}, {"dtype": "nonsense"}, {"dtype": "(2,3"}])
def test_an_impossible_dtype_is_named(kwargs: dict, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dtype .=.*give a floating-point one"):
        from_pretrained("me/whole", endpoint=hub.endpoint, cache_dir=tmp_path, **kwargs)


@pytest.mark.parametrize("name", ["nfnet_cifar10", "."])
def test_what_is_on_this_machine_is_not_pulled(name: str) -> None:
    with pytest.raises(InputError, match="is on this machine; there is nothing to pull"):
        pull(name)


def test_two_revisions_are_one_too_many(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'me/sharded@v1' names the revision 'v1', and revision='main' another"):
        from_pretrained("me/sharded@v1", revision="main", endpoint=hub.endpoint, cache_dir=tmp_path)


def test_a_bundled_name_and_a_folder_come_before_the_hub(
    hub: Hub, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_pretrained(tiny("mine"), tmp_path / "me" / "whole")
    assert from_pretrained("nfnet_cifar10", endpoint=hub.endpoint).source.commit is None
    ckpt = from_pretrained("me/whole", endpoint=hub.endpoint)
    assert (ckpt.architecture, str(ckpt.source)) == ("mine", "me/whole")
    assert set(ckpt.source.sha256) == {"config.json", "model.safetensors"}
    assert asked == []


@pytest.mark.parametrize("kwargs", [{"local_files_only": True}, {}], ids=["local_files_only", "no network"])
def test_without_cache_and_network_it_says_so_at_once(kwargs: dict, tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError, match="me/whole: (not in the cache|the Hub cannot be reached)"):
        from_pretrained("me/whole", endpoint=DEAD, cache_dir=tmp_path, **kwargs)
    assert time.perf_counter() - start < 3


OFFLINE = """
import time, nfnet_eqx as nfx
start = time.perf_counter()
try:
    print(nfx.from_pretrained("{name}").source)
except nfx.InputError as error:
    print("refused:", error)
assert time.perf_counter() - start < 10
"""


def test_hf_hub_offline_is_obeyed(hub: Hub, asked: list[str], tmp_path: Path) -> None:
    pull("me/whole", endpoint=hub.endpoint, cache_dir=tmp_path / "hub")
    asked.clear()

    def run(name: str) -> str:
        env = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.endpoint}
        command = [sys.executable, "-c", OFFLINE.format(name=name)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    assert run("me/whole") == f"me/whole@{hub.commit('me/whole')}\n"
    assert run("me/sharded").startswith("refused: me/sharded: the Hub is not asked while HF_HUB_OFFLINE is set")
    assert asked == []


# In a process of its own: here the types of arguments are checked before the library sees them.
WRONG = """
import nfnet_eqx as nfx
from nfnet_eqx.zoo import pull
ckpt = nfx.from_pretrained("nfnet_cifar10")
for call, values in (
    (nfx.from_pretrained, (None, 5, b"nfnet_cifar10", ckpt)),
    (pull, (None, 5)),
    (lambda what: nfx.push_to_hub(what, "me/x"), (None, ckpt.model)),
):
    for value in values:
        try:
            call(value)
        except nfx.InputError as error:
            print(error)
"""


def test_what_is_no_checkpoint_and_no_name_of_one_is_refused_with_the_remedy() -> None:
    said = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 8
    assert all("source: a name, a path or a Hub id is needed, this is of type" in line for line in said[:6])
    assert all("a network needs its preprocessing beside it: Checkpoint(model=" in line for line in said[6:])


def test_the_examples_of_the_docstrings_hold() -> None:
    from nfnet_eqx import zoo

    assert doctest.testmod(zoo) == (0, 4)
