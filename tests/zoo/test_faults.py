"""What goes wrong between Hub and disk: each time one clear line, and never half a file taken for a whole one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nfnet_eqx import InputError, from_pretrained, named_parameters, save_pretrained
from nfnet_eqx.zoo import _fetch
from nfnet_eqx.zoo._hub import pull
from tests.hub_server import Hub
from tests.zoo.repos import TIMM, WEIGHTS, files_of, refusal, sharded, tiny


def test_a_token_that_is_not_accepted(hub: Hub, tmp_path: Path) -> None:
    message = refusal(hub, tmp_path / "cache", token="hf_wrong")
    assert message.startswith("me/x: the Hub answers 401")
    assert "the token was not accepted; `hf auth login` with a valid one" in message
    assert "hf_wrong" not in message


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_a_gated_repository(token: str | None, hub: Hub, repos: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    hub.add("me/gated", repos["me/x"], gated=True)
    kwargs = {} if token is None else {"token": token}
    assert "access must be granted on its page first" in refusal(hub, tmp_path / "cache", "me/gated", **kwargs)
    hub.granted.add(("stranger", "me/gated"))
    ckpt = from_pretrained("me/gated", endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="hf_stranger")
    assert ckpt.source.name == "me/gated"


def test_a_private_repository_opens_for_its_owner_and_is_not_there_for_others(
    hub: Hub, repos: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    hub.add("me/private", repos["me/x"], private=True)
    for kwargs in ({}, {"token": "hf_stranger"}):
        assert "no such repository on the Hub (or a private one" in refusal(hub, tmp_path / "c", "me/private", **kwargs)
    ckpt = from_pretrained("me/private", endpoint=hub.endpoint, cache_dir=tmp_path / "c", token="hf_me")
    assert ckpt.source.name == "me/private"


@pytest.mark.parametrize("pattern", ["/api/models/", "GET .*/resolve/.*config.json", f"GET .*/resolve/.*{WEIGHTS}"])
def test_a_hub_that_stumbles_is_asked_again(pattern: str, hub: Hub, tmp_path: Path) -> None:
    hub.fail(pattern, 503, times=2)
    ckpt = from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    assert ckpt.source.commit == hub.commit("me/x")


def test_a_hub_that_lies_down_is_told_as_such(hub: Hub, tmp_path: Path) -> None:
    hub.fail("/api/models/", 503, times=None, message="Scheduled maintenance")
    message = refusal(hub, tmp_path / "cache")
    assert message == "me/x: the Hub answers 503 (Scheduled maintenance): the Hub is at fault; try again later"


def test_too_many_requests(hub: Hub, tmp_path: Path) -> None:
    hub.fail("/api/models/", 429, times=None)
    assert "too many requests; wait a few minutes" in refusal(hub, tmp_path / "cache")


@pytest.mark.parametrize("status, why", [(503, "the Hub is at fault; try again later"), (429, "wait a few minutes")])
def test_a_hub_that_lists_files_and_does_not_serve_them_is_at_fault(
    status: int, why: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail("GET .*/resolve/", status, times=None)
    # The client waits for its own repetitions, and would for half a minute.
    monkeypatch.setattr("time.sleep", lambda _: None)
    message = refusal(hub, tmp_path / "cache")
    assert message.startswith(f"me/x: the Hub answers {status}") and why in message


def test_what_is_no_hub_is_told_as_such(hub: Hub, tmp_path: Path) -> None:
    for body in (
        b"<html>log in</html>",
        b"null",
        b"{}",
        b'{"sha": 1}',
        b'{"sha": "1", "siblings": [{"rfilename": null}]}',
    ):
        hub.restore()
        hub.say("/api/models/", body)
        message = refusal(hub, tmp_path / "cache")
        assert message.startswith("me/x: does not answer as a Hub does; check the connection and the endpoint"), body


def test_a_download_that_is_cut_ends_whole(hub: Hub, tmp_path: Path) -> None:
    size = len(hub.files(TIMM)[WEIGHTS])
    hub.cut(f"GET .*/resolve/.*{WEIGHTS}", after=size // 2)
    ckpt = from_pretrained(TIMM, endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    gets = [line for line in hub.requests if line.startswith("GET") and line.endswith(WEIGHTS)]
    assert len(gets) == 2
    whole = from_pretrained(TIMM, endpoint=hub.endpoint, cache_dir=tmp_path / "another")
    for name, array in named_parameters(ckpt.model).items():
        np.testing.assert_array_equal(array, named_parameters(whole.model)[name], err_msg=name)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_file_of_other_bytes_than_announced_is_refused_and_forgotten(name: str, hub: Hub, tmp_path: Path) -> None:
    true = hub.files("me/x")[name]
    flipped = true[:-40] + bytes([true[-40] ^ 1]) + true[-39:]
    hub.tamper("me/x", name, flipped)
    message = refusal(hub, tmp_path / "cache")
    assert message.startswith(f"me/x: {name} is not the file that the Hub announced")
    hub.tamper("me/x", name, true)
    assert from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache").source.sha256


def test_a_broken_index_of_shards_is_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    hub.add("me/sharded", sharded(tmp_path))
    index, cache = "model.safetensors.index.json", tmp_path / "cache"
    true = hub.files("me/sharded")[index]
    hub.tamper("me/sharded", index, b"[" + true[1:])
    assert f"{index} is not the file that the Hub announced" in refusal(hub, cache, "me/sharded")
    hub.restore()
    from_pretrained("me/sharded", endpoint=hub.endpoint, cache_dir=cache)
    (cached,) = cache.rglob(index)
    cached.resolve().write_bytes(b"[" + true[1:])
    assert f"{index} is not the file that the Hub announced" in refusal(hub, cache, "me/sharded")
    assert from_pretrained("me/sharded", endpoint=hub.endpoint, cache_dir=cache).source.sha256


def test_a_shard_that_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    files = sharded(tmp_path)
    del files["model-00002-of-00002.safetensors"]
    hub.add("me/incomplete", files)
    message = refusal(hub, tmp_path / "cache", "me/incomplete")
    assert message.startswith("me/incomplete: the repository has no model-00002-of-00002.safetensors")


NO_LINKS = """
import sys, nfnet_eqx as nfx
try:
    nfx.from_pretrained("me/x", cache_dir=sys.argv[1])
except nfx.InputError as error:
    print(error)
"""


def test_a_cache_without_links_is_no_excuse_for_wrong_bytes(hub: Hub, tmp_path: Path) -> None:
    true = hub.files("me/x")[WEIGHTS]
    hub.tamper("me/x", WEIGHTS, true[:-40] + bytes([true[-40] ^ 1]) + true[-39:])
    env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_SYMLINKS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", NO_LINKS, str(tmp_path / "cache")]
    first = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert first.startswith(f"me/x: {WEIGHTS} is not the file that the Hub announced")
    hub.restore()
    assert subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_file_that_has_rotted_in_the_cache_is_found_at_the_next_load(name: str, hub: Hub, tmp_path: Path) -> None:
    folder = pull("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache").folder
    blob = (folder / name).resolve()
    content = bytearray(blob.read_bytes())
    content[-40] ^= 1
    blob.write_bytes(content)
    assert f"{name} is not the file that the Hub announced" in refusal(hub, tmp_path / "cache")
    assert from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache").source.sha256


def test_a_repository_that_moves_while_it_is_fetched(
    hub: Hub, repos: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    save_pretrained(tiny(seed=1), tmp_path / "new")
    real = _fetch._look_through

    def move(where: str, names: list[str]) -> list[str]:
        hub.add("me/x", files_of(tmp_path / "new"))
        return real(where, names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fetch, "_look_through", move)
        with pytest.raises(InputError, match="me/x: changed while it was fetched; try again"):
            from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache")


PULL = """
import sys, nfnet_eqx as nfx
ckpt = nfx.from_pretrained("timm/test_nfnet.r160_in1k", cache_dir=sys.argv[1])
print(ckpt.source.sha256["model.safetensors"])
"""


def test_two_processes_may_pull_the_same_model_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.delay(f"GET .*/resolve/.*{WEIGHTS}", 0.5)
    command = [sys.executable, "-c", PULL, str(tmp_path / "cache")]
    env = os.environ | {"HF_ENDPOINT": hub.endpoint}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] and len(answers[0].strip()) == 64
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_full_disk(hub: Hub, small_disk: Path) -> None:
    message = refusal(hub, small_disk, TIMM)
    assert message.startswith(f"{TIMM}: the disk is full; free some of it, or set HF_HOME")


@pytest.mark.parametrize("token", ["hf_secretsecret\n", " hf_secretsecret", "", "hf_sécret", "hf secretsecret"])
def test_what_cannot_be_a_token_is_refused_unseen(
    token: str, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    message = refusal(hub, tmp_path / "cache", token=token)
    assert message.startswith("token: is empty or holds spaces, line ends")
    assert "cret" not in message + caplog.text and hub.requests == []


def test_no_message_log_or_file_holds_the_token(
    hub: Hub,
    repos: dict[str, dict[str, bytes]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    hub.users["hf_secretsecret"] = "me"
    hub.add("me/private", repos["me/x"], private=True)
    cache = tmp_path / "cache"
    hub.fail("/api/models/", 503)
    hub.fail("GET .*/resolve/.*config.json", 500)
    from_pretrained("me/private", endpoint=hub.endpoint, cache_dir=cache, token="hf_secretsecret")
    hub.fail("/api/models/", 403, times=None, message="no")
    with pytest.raises(InputError) as refused:
        pull("me/private", endpoint=hub.endpoint, cache_dir=cache, token="hf_secretsecret")
    said = caplog.text + "".join(capfd.readouterr()) + str(refused.value)
    written = b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
    assert "secretsecret" not in said and b"secretsecret" not in written
