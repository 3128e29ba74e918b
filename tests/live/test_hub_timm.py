"""Through a Hub: what is pushed from here opens in timm, and what timm pushes opens here, with equal logits."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nfnet_eqx import from_pretrained, push_to_hub
from nfnet_eqx.checkpoints._card import History
from nfnet_eqx.checkpoints._checkpoint import Checkpoint
from nfnet_eqx.checkpoints._tensors import load_tensors
from nfnet_eqx.checkpoints._timm import config_from_timm
from nfnet_eqx.images._preprocess import Preprocess
from tests.hub_server import Hub
from tests.live.measured import note
from tests.live.pair import TOLERANCE, arrays, our_outputs, picture, randomize, small, timm

ARCHITECTURES = ["dm_nfnet_f0", "eca_nfnet_l0", "nf_regnet_b0", "nf_resnet26", "test_nfnet"]

# timm finds the Hub by an environment variable, which is read when its client is imported: hence a process.
THEIRS = """
import json, sys
import numpy as np
from nfnet_eqx.convert._verify import import_timm
timm, torch = import_timm()
from tests.live.pair import picture, randomize
what, name, architecture, settings, out = sys.argv[1:]
if what == "pull":
    model = timm.create_model(f"hf-hub:{name}", pretrained=True).eval()
else:
    model = timm.create_model(architecture, **json.loads(settings)).eval()
    randomize(model, 0)
    config = {"label_names": ["one", "two", "three"]}
    timm.models.push_to_hf_hub(model, name, model_config=config, token="hf_me", safe_serialization="both")
with torch.no_grad():
    np.save(out, model(torch.from_numpy(picture(64)[None])).numpy()[0])
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def in_timm(hub: Hub, tmp_path: Path, what: str, name: str, architecture: str, settings: str = "{}") -> np.ndarray:
    env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "timm"), "HF_TOKEN": "hf_me"}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        THEIRS,
        what,
        name,
        architecture,
        settings,
        str(tmp_path / "o.npy"),
    ]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return np.load(tmp_path / "o.npy")


def assert_equal(ours: np.ndarray, theirs: np.ndarray, where: str) -> None:
    scale = max(1.0, float(np.abs(theirs).max()))
    difference = float(np.abs(ours - theirs).max())
    assert note("difference to timm through a Hub, logits", difference / scale, where) <= TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_we_push_opens_in_timm(architecture: str, hub: Hub, tmp_path: Path) -> None:
    model_args = small(architecture) | {"num_classes": 3}
    theirs = timm.create_model(architecture, **model_args).eval()
    randomize(theirs, 1)
    _, config = config_from_timm({"architecture": architecture, "model_args": model_args})
    model = load_tensors(config, arrays(theirs), source=architecture)
    ckpt = Checkpoint(
        model=model, preprocess=Preprocess(input_size=(64, 64)), labels=("a", "b", "c"), architecture=architecture
    )
    name = f"me/ours-{architecture}"
    push_to_hub(ckpt, name, history=History(dataset="cifar10"), endpoint=hub.endpoint, token="hf_me")
    logits = in_timm(hub, tmp_path, "pull", name, architecture)
    assert_equal(our_outputs(model, picture(64))["logits"], logits, f"{architecture}, pushed by us")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_timm_pushes_opens_here(architecture: str, hub: Hub, tmp_path: Path) -> None:
    import json

    name, settings = f"me/theirs-{architecture}", json.dumps(small(architecture) | {"num_classes": 3})
    logits = in_timm(hub, tmp_path, "push", name, architecture, settings)
    ckpt = from_pretrained(name, endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    assert (ckpt.architecture, ckpt.labels) == (architecture, ("one", "two", "three"))
    assert_equal(our_outputs(ckpt.model, picture(64))["logits"], logits, f"{architecture}, pushed by timm")
    assert "pytorch_model.bin" in hub.files(name), "timm pushes a pickle too"
    assert not [line for line in hub.requests if line.startswith("GET") and line.endswith(".bin")]
