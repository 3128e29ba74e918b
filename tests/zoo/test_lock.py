"""The lock file: later loads are held to the commit and the bytes of the first."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfnet_eqx import InputError, from_pretrained, save_pretrained
from nfnet_eqx.zoo._hub import pull
from tests.hub_server import Hub
from tests.zoo.repos import files_of, tiny


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as hub:
        add(hub, tmp_path, seed=0)
        yield hub


def add(hub: Hub, tmp_path: Path, seed: int) -> str:
    save_pretrained(tiny(seed=seed), tmp_path / f"seed-{seed}")
    return hub.add("me/x", files_of(tmp_path / f"seed-{seed}"))


def test_a_lock_names_commit_and_bytes_and_keeps_its_other_entries(hub: Hub, tmp_path: Path) -> None:
    lock = tmp_path / "nfnet.lock"
    first = pull("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c").origin
    hub.tag("me/x", "v1")
    pull("me/x", revision="v1", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c")
    entry = {"commit": first.commit, "sha256": dict(first.sha256)}
    assert json.loads(lock.read_text()) == {"checkpoints": {"me/x": entry, "me/x@v1": entry}}


def test_a_locked_load_opens_the_locked_commit_whatever_the_branch_is_now(hub: Hub, tmp_path: Path) -> None:
    lock = tmp_path / "nfnet.lock"
    locked = pull("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c").origin
    newer = add(hub, tmp_path, seed=1)
    for cache in ("c", "another cache"):
        ckpt = from_pretrained("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / cache)
        assert ckpt.source == locked
    assert pull("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c").origin.commit == newer
    assert from_pretrained("me/x", lock=lock, cache_dir=tmp_path / "c").source.commit == newer


def test_other_bytes_than_the_locked_ones_are_refused(hub: Hub, tmp_path: Path) -> None:
    lock = tmp_path / "nfnet.lock"
    pull("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c")
    content = json.loads(lock.read_text())
    content["checkpoints"]["me/x"]["sha256"]["model.safetensors"] = "0" * 64
    lock.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match="me/x: model.safetensors is not the one of .*nfnet.lock .sha256 .*, locked 0000"
    ):
        from_pretrained("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c")


def test_a_repository_that_is_not_in_the_lock_is_refused_with_the_remedy(hub: Hub, tmp_path: Path) -> None:
    lock = tmp_path / "nfnet.lock"
    pull("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c")
    with pytest.raises(InputError, match="has no entry for me/y; `nfnet-eqx pull me/y --lock .*nfnet.lock` adds one"):
        from_pretrained("me/y", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c")
    with pytest.raises(InputError, match="'nfnet_cifar10'|nfnet_cifar10: is on this machine"):
        from_pretrained("nfnet_cifar10", lock=lock)


def test_main_is_what_is_meant_without_a_revision(hub: Hub, tmp_path: Path) -> None:
    lock = tmp_path / "nfnet.lock"
    pull("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c")
    assert from_pretrained("me/x@main", lock=lock, cache_dir=tmp_path / "c").source.commit == hub.commit("me/x")


def test_a_lock_that_could_not_be_written_is_told_before_the_work(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere/nfnet.lock: its folder does not exist"):
        pull("me/x", lock=tmp_path / "nowhere" / "nfnet.lock", endpoint=hub.endpoint, cache_dir=tmp_path / "c")
    assert hub.requests == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "no json",
        '{"checkpoints": {"me/x": {}}}',
        '{"checkpoints": {"me/x": {"commit": "main", "sha256": {}}}}',
        '{"checkpoints": {"me/x": {"commit": "%s", "sha256": {"config.json": 1}}}}' % ("0" * 40),
    ],
)
def test_what_is_no_lock_file_is_refused_and_not_overwritten(text: str, hub: Hub, tmp_path: Path) -> None:
    lock = tmp_path / "something.json"
    lock.write_text(text)
    for call in (from_pretrained, pull):
        with pytest.raises(InputError, match="something.json"):
            call("me/x", lock=lock, endpoint=hub.endpoint, cache_dir=tmp_path / "c")
    assert lock.read_text() == text
