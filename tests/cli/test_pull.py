"""`nfnet-eqx pull` and `push`, as a user types them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfnet_eqx import from_pretrained, save_pretrained
from nfnet_eqx.cli import main
from tests.hub_server import Hub
from tests.zoo.repos import TIMM, published, tiny


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    with Hub(tmp_path / "hub") as hub:
        hub.add(TIMM, published(tmp_path))
        yield hub


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_pull_says_what_came_and_what_was_left_alone(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pull", "test_nfnet.r160_in1k", "--endpoint", hub.endpoint, "--cache-dir", tmp_path / "c") == 0
    first, folder, *files, ignored = capsys.readouterr().out.splitlines()
    assert first == f"{TIMM}@{hub.commit(TIMM)}"
    assert Path(folder).is_dir()
    assert [line.split()[-1] for line in files] == ["config.json", "model.safetensors"]
    assert all(re.fullmatch("[0-9a-f]{64}", line.split()[0]) for line in files)
    assert ignored == "never read: modeling.py, pytorch_model.bin"


def test_pull_prints_json_and_locks(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock, cache = tmp_path / "nfnet.lock", tmp_path / "c"
    assert run("pull", TIMM, "--lock", lock, "--endpoint", hub.endpoint, "--cache-dir", cache, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["id"] == TIMM and found["commit"] == hub.commit(TIMM)
    ckpt = from_pretrained(TIMM, lock=lock, cache_dir=cache)
    assert {name: file["sha256"] for name, file in found["files"].items()} == ckpt.source.sha256


def test_push_prints_the_address(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_pretrained(tiny(), tmp_path / "mine")
    assert run("push", tmp_path / "mine", "me/mine", "--private", "--endpoint", hub.endpoint) == 0
    assert capsys.readouterr().out == f"{hub.endpoint}/me/mine/commit/{hub.commit('me/mine')}\n"
    assert run("push", tmp_path / "mine", "me/mine", "--create-pr", "--endpoint", hub.endpoint) == 0


BAD = {
    "no repository": (("pull", "me/nothing"), "me/nothing: no such repository on the Hub"),
    "no id": (("pull", "what"), "'what' is no bundled checkpoint"),
    "no folder": (("push", "nowhere", "me/x"), "nowhere: no such folder"),
    "not allowed": (("push", "mine", "stranger/x"), "stranger/x: the Hub answers 403"),
    "impossible name": (("push", "mine", "me/a b"), "me/a b"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(
    case: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_pretrained(tiny(), tmp_path / "mine")
    arguments, reason = BAD[case]
    assert run(*arguments, "--endpoint", hub.endpoint) == 2
    out, err = capsys.readouterr()
    assert out == "" and reason in err and err.count("\n") == 1


def test_a_token_that_a_server_repeats_is_printed_nowhere(hub: Hub, tmp_path: Path) -> None:
    hub.users["hf_secretsecret"] = "me"
    hub.false[TIMM, "config.json"] = {"X-HF-Warning": "login; Bearer hf_secretsecret is old"}
    arguments = ["pull", TIMM, "--endpoint", hub.endpoint, "--cache-dir", str(tmp_path / "c")]
    env = os.environ | {"HF_TOKEN": "hf_secretsecret"}
    result = subprocess.run([sys.executable, "-m", "nfnet_eqx", *arguments], env=env, capture_output=True, text=True)
    assert result.returncode == 0
    assert "Bearer [token] is old" in result.stderr and "secretsecret" not in result.stderr + result.stdout
