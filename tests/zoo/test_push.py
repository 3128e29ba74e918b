"""Publishing on the Hub: the real client against a server on the loopback."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nfnet_eqx import InputError, from_pretrained, named_parameters, push_to_hub, save_pretrained
from nfnet_eqx.checkpoints._card import History
from tests.hub_server import Hub
from tests.zoo.repos import sharded, tiny

FILES = {"README.md", "config.json", "model.safetensors"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as hub:
        yield hub


def push(hub: Hub, ckpt: Any, repo_id: str = "me/x", *, token: str = "hf_me", **kwargs: Any) -> str:
    return push_to_hub(ckpt, repo_id, endpoint=hub.endpoint, token=token, **kwargs)


def refusal(hub: Hub, ckpt: Any, repo_id: str = "me/x", **kwargs: Any) -> str:
    with pytest.raises(InputError) as refused:
        push(hub, ckpt, repo_id, **kwargs)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def opened(hub: Hub, tmp_path: Path, name: str = "me/x", **kwargs: Any) -> Any:
    return from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", **kwargs)


def weight(ckpt: Any) -> np.ndarray:
    return np.asarray(named_parameters(ckpt.model)["head.fc.weight"])


def front_matter(card: bytes) -> dict[str, Any]:
    return yaml.safe_load(card.decode().split("---\n")[1])


def test_what_is_pushed_opens_again_as_it_was(hub: Hub, tmp_path: Path) -> None:
    address = push(hub, tiny())
    assert address == f"{hub.endpoint}/me/x/commit/{hub.commit('me/x')}"
    ckpt = opened(hub, tmp_path)
    assert (ckpt.labels, ckpt.architecture, ckpt.config) == (tiny().labels, "tiny", tiny().config)
    for name, array in named_parameters(tiny().model).items():
        np.testing.assert_array_equal(array, named_parameters(ckpt.model)[name], err_msg=name)


def test_a_push_is_one_commit_of_three_files(hub: Hub, tmp_path: Path) -> None:
    hub.add("me/x", {".gitattributes": b"*.bin filter=lfs\n"})
    push(hub, tiny(), commit_message="the first one")
    assert len(hub.history("me/x")) == 2
    assert hub.files("me/x").keys() == FILES | {".gitattributes"}


def test_nothing_else_of_the_folder_is_uploaded(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_pretrained(tiny(), folder)
    for name in ("optimizer.npz", ".env", "notes.txt", "model.bin"):
        (folder / name).write_text("secret")
    (folder / "checkpoints").mkdir()
    push(hub, folder)
    assert hub.files("me/x").keys() == FILES
    assert not (folder / "README.md").exists(), "the card was written for the Hub, not into the folder"


def test_shards_go_with_their_index(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name, content in sharded(tmp_path).items():
        (folder / name).write_bytes(content)
    push(hub, folder)
    assert np.array_equal(weight(opened(hub, tmp_path)), weight(tiny()))


def test_the_card_says_what_is_known_and_how_to_load_it_from_there(hub: Hub, tmp_path: Path) -> None:
    history = History(results={"top1": 91.5}, dataset="cifar10", base_model="timm/dm_nfnet_f0.dm_in1k")
    push(hub, tiny(), history=history)
    card = hub.files("me/x")["README.md"]
    meta = front_matter(card)
    assert (meta["library_name"], meta["base_model"]) == ("nfnet-eqx", "timm/dm_nfnet_f0.dm_in1k")
    assert meta["model-index"][0]["results"][0]["metrics"][0]["value"] == 91.5
    assert 'nfx.from_pretrained("me/x")' in card.decode()
    assert "path/to/this/folder" not in card.decode()


def test_a_card_of_ones_own_is_left_as_it_is(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_pretrained(tiny(), folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    push(hub, folder)
    assert hub.files("me/x")["README.md"] == b"---\nlicense: mit\n---\n# Mine\n"


@pytest.mark.parametrize("card", ["---\nlicense: [mit\n---\n# Mine\n", "---\n- a list\n---\n"])
def test_a_card_with_broken_front_matter_is_refused_by_its_name(card: str, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_pretrained(tiny(), folder)
    (folder / "README.md").write_text(card)
    assert "README.md" in refusal(hub, folder)
    assert not hub.files("me/x")


def test_another_architecture_is_not_overwritten_unless_told_to(hub: Hub, tmp_path: Path) -> None:
    push(hub, tiny("first"))
    before = hub.commit("me/x")
    message = refusal(hub, tiny("second"))
    assert message == (
        "me/x: holds 'first', and this is 'second'; push to another repository, or replace it with overwrite"
    )
    assert hub.commit("me/x") == before
    push(hub, tiny("second"), overwrite=True)
    assert opened(hub, tmp_path).architecture == "second"
    push(hub, tiny("second", seed=1))
    assert len(hub.history("me/x")) == 1 + 3, "the Hub's own first commit, and three pushes"


@pytest.mark.parametrize("config", [b'{"model_type": "bert"}', b"no json", b'{"nfnet_eqx": 3}'])
def test_another_librarys_model_is_not_overwritten(config: bytes, hub: Hub) -> None:
    hub.add("me/x", {"config.json": config})
    assert "me/x: holds 'something else', and this is 'tiny'" in refusal(hub, tiny())


def test_weights_of_another_format_are_not_joined_unless_told_to_and_stay(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("me/x", {"pytorch_model.bin": b"older", "README.md": b"mine"})
    assert "me/x: holds 'something else', and this is 'tiny'" in refusal(hub, tiny())
    push(hub, tiny(), overwrite=True)
    assert "me/x also holds 'pytorch_model.bin', which stay as they are" in caplog.text
    assert hub.files("me/x")["pytorch_model.bin"] == b"older"


@pytest.mark.parametrize("first", ["whole", "sharded"])
def test_no_part_of_older_weights_is_opened_with_the_newer(first: str, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    folder.mkdir()
    for name, content in sharded(tmp_path).items():
        (folder / name).write_bytes(content)
    whole = dataclasses.replace(tiny("tiny", seed=7))
    pushes = [folder, whole] if first == "sharded" else [whole, folder]
    for ckpt in pushes:
        push(hub, ckpt)
    expected = whole if first == "sharded" else tiny()
    assert np.array_equal(weight(opened(hub, tmp_path)), weight(expected))
    weights = {name for name in hub.files("me/x") if "safetensors" in name}
    assert (weights == {"model.safetensors"}) == (first == "sharded")
    assert ("model.safetensors" in weights) == (first == "sharded")


def test_a_private_repository_is_private(hub: Hub, tmp_path: Path) -> None:
    push(hub, tiny(), private=True)
    with pytest.raises(InputError, match="no such repository"):
        opened(hub, tmp_path, token="hf_stranger")
    assert opened(hub, tmp_path, token="hf_me").architecture == "tiny"


def test_what_should_be_private_does_not_go_to_a_public_repository(hub: Hub) -> None:
    push(hub, tiny())
    before = hub.commit("me/x")
    assert "me/x: exists and is public" in refusal(hub, tiny(seed=1), private=True)
    assert hub.commit("me/x") == before


def test_a_branch_is_made_where_there_is_none(hub: Hub, tmp_path: Path) -> None:
    push(hub, tiny())
    main = hub.commit("me/x")
    push(hub, tiny(seed=1), revision="ema")
    push(hub, tiny(seed=2), revision="ema")
    assert hub.commit("me/x") == main
    assert np.array_equal(weight(opened(hub, tmp_path, "me/x@ema")), weight(tiny(seed=2)))


def test_a_pull_request_changes_nothing_yet(hub: Hub, tmp_path: Path) -> None:
    push(hub, tiny())
    main = hub.commit("me/x")
    address = push(hub, tiny(seed=1), create_pr=True)
    assert address.endswith("/me/x/discussions/1")
    assert hub.commit("me/x") == main
    assert np.array_equal(weight(opened(hub, tmp_path, "me/x@refs/pr/1")), weight(tiny(seed=1)))
    assert "leave out revision or create_pr" in refusal(hub, tiny(), create_pr=True, revision="main")
    push(hub, tiny(seed=2), revision="refs/pr/1")
    assert hub.commit("me/x") == main
    fresh = from_pretrained("me/x@refs/pr/1", endpoint=hub.endpoint, cache_dir=tmp_path / "another")
    assert np.array_equal(weight(fresh), weight(tiny(seed=2)))


def test_what_is_refused_leaves_no_branch_and_no_repository(hub: Hub) -> None:
    push(hub, tiny("first"))
    refusal(hub, tiny("second"), revision="dev")
    assert "dev" not in "".join(hub.store.repos["me/x"].refs)
    assert "nothing is added to one; name a branch" in refusal(hub, tiny("first"), revision=hub.commit("me/x"))
    assert "no such repository" in refusal(hub, tiny(), "me/none", create_pr=True)
    assert hub.repos() == ["me/x"]


def test_a_bare_name_is_ones_own(hub: Hub) -> None:
    push(hub, tiny(), "just-a-name")
    assert hub.files("me/just-a-name").keys() == FILES


@pytest.mark.parametrize("token, why", [("hf_stranger", "403"), ("hf_wrong", "401"), (None, "`hf auth login`")])
def test_who_may_not_write_is_told_so(token: Any, why: str, hub: Hub) -> None:
    push(hub, tiny())
    before = hub.commit("me/x")
    message = refusal(hub, tiny(seed=1), token=token)
    assert message.startswith("me/x: ") and why in message and "token" in message
    assert hub.commit("me/x") == before
    assert "nothing is published without one" in refusal(hub, tiny(), token=False)


def test_an_interrupted_push_leaves_the_repository_as_it_was(hub: Hub, tmp_path: Path) -> None:
    push(hub, tiny())
    before = hub.commit("me/x")
    hub.drop("POST .*/commit/", times=None)
    assert "me/x: the Hub cannot be reached" in refusal(hub, tiny(seed=1))
    assert hub.commit("me/x") == before
    hub.restore()
    push(hub, tiny(seed=1))
    assert np.array_equal(weight(opened(hub, tmp_path)), weight(tiny(seed=1)))


def test_what_is_no_hub_is_told_as_such(hub: Hub) -> None:
    push(hub, tiny())
    for pattern in ("whoami", "/api/models/me/x", "/preupload/", "validate-yaml", "POST .*/commit/"):
        hub.restore()
        hub.say(pattern, b"<html>log in</html>")
        assert "me/x: does not answer as a Hub does" in refusal(hub, tiny(seed=1)), pattern


def test_a_push_in_between_is_not_overwritten(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from nfnet_eqx.zoo import _push as module

    push(hub, tiny())

    def meanwhile(*_: object) -> None:
        hub.add("me/x", {"notes.txt": b"mine"})

    monkeypatch.setattr(module, "_note_other_weights", meanwhile)
    assert "the repository was changed meanwhile; try again" in refusal(hub, tiny(seed=1))


def test_the_same_again_is_no_new_commit(hub: Hub) -> None:
    push(hub, tiny())
    push(hub, tiny())
    assert len(hub.history("me/x")) == 1 + 1


def test_what_cannot_be_opened_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_pretrained(tiny(), folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    assert "the file is cut off" in refusal(hub, folder)
    assert "no such folder" in refusal(hub, tmp_path / "nothing")
    assert hub.requests == []


AGAIN = """
import sys, nfnet_eqx as nfx
from tests.zoo.repos import tiny
first = nfx.from_pretrained("me/x").source.commit
nfx.push_to_hub(tiny(seed=2), "me/x", token="hf_me", create_pr=True)
assert nfx.from_pretrained("me/x", local_files_only=True).source.commit == first
nfx.push_to_hub(tiny(seed=1), "me/x", token="hf_me")
assert nfx.from_pretrained("me/x").source.commit != first
"""


def test_after_a_push_the_cache_does_not_answer_with_what_was_there_before(hub: Hub, tmp_path: Path) -> None:
    push(hub, tiny())
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint}
    result = subprocess.run([sys.executable, "-c", AGAIN], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_provenance_of_timm_survives(hub: Hub, tmp_path: Path) -> None:
    ckpt = dataclasses.replace(tiny(), about={"license": "apache-2.0", "tag": "x_in1k"})
    push(hub, ckpt)
    assert front_matter(hub.files("me/x")["README.md"])["license"] == "apache-2.0"
    assert json.loads(hub.files("me/x")["config.json"])["pretrained_cfg"]["tag"] == "x_in1k"
