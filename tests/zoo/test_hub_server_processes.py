"""The Hub of the tests, asked by other processes: LFS, the `hf` command, and serving by hand."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from tests.hub_server import Hub

CARD = b"---\nlibrary_name: nfnet-eqx\nlicense: mit\n---\n# Mine\n"
WEIGHTS = bytes(range(256)) * 8192  # two megabytes


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as hub:
        yield hub


def run(hub: Hub, tmp_path: Path, *command: Any, **variables: str) -> str:
    env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_me"} | variables
    result = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().create_repo("me/x", exist_ok=True)
print(HfApi().upload_folder(repo_id="me/x", folder_path=sys.argv[1]).oid)
"""


def test_large_files_go_by_lfs(hub: Hub, tmp_path: Path) -> None:
    hub.lfs_from = 1000
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "mine" / "config.json").write_bytes(b"{}")
    upload = (sys.executable, "-c", UPLOAD, tmp_path / "mine")
    run(hub, tmp_path, *upload, HF_HUB_DISABLE_XET="1")
    oid = hashlib.sha256(WEIGHTS).hexdigest()
    assert [line for line in hub.requests if "lfs" in line] == [
        "POST /me/x.git/info/lfs/objects/batch",
        f"PUT /lfs/{oid}",
        "POST /me/x.git/info/lfs/verify",
    ]
    assert hub.files("me/x") == {"model.safetensors": WEIGHTS, "config.json": b"{}"}
    hub.requests.clear()
    assert run(hub, tmp_path, *upload, HF_HUB_DISABLE_XET="1").strip() == hub.commit("me/x")
    assert len(hub.history("me/x")) == 2 and not [line for line in hub.requests if "PUT" in line]


def test_the_hf_command_uploads_lists_and_downloads(hub: Hub, tmp_path: Path) -> None:
    hf = Path(sys.executable).with_name("hf")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_bytes(b"{}")
    (tmp_path / "mine" / "README.md").write_bytes(CARD)
    assert "me" in run(hub, tmp_path, hf, "auth", "whoami")
    run(hub, tmp_path, hf, "upload", "me/x", tmp_path / "mine")
    assert hub.files("me/x") == {"config.json": b"{}", "README.md": CARD}
    assert "me/x" in run(hub, tmp_path, hf, "models", "list", "--filter", "nfnet-eqx")
    run(hub, tmp_path, hf, "download", "me/x", "--local-dir", tmp_path / "there")
    assert (tmp_path / "there" / "README.md").read_bytes() == CARD


def test_a_folder_is_served_by_hand(tmp_path: Path) -> None:
    (tmp_path / "org" / "x" / "sub").mkdir(parents=True)
    (tmp_path / "org" / "x" / "sub" / "a.txt").write_bytes(b"hello")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.hub_server", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with server:
        endpoint = server.stdout.readline().split("HF_ENDPOINT=")[1].split()[0]
        assert HfApi(endpoint=endpoint).list_repo_files("org/x") == ["sub/a.txt"]
        server.send_signal(2)
        assert server.wait(10) == 0 and server.stderr.read() == ""
