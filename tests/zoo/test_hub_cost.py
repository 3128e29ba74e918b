"""What it costs to pull the 286 MB of NFNet-F0 into arrays, against the client's bare download of the file."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfnet_eqx import get_config
from nfnet_eqx.checkpoints import Checkpoint, save_pretrained
from nfnet_eqx.checkpoints._tensors import load_tensors
from nfnet_eqx.images._preprocess import Preprocess
from nfnet_eqx.zoo._hub import pull
from tests.hub_server import Hub
from tests.zoo.repos import random_tensors

NAME, WEIGHTS = "me/dm_nfnet_f0", "model.safetensors"
MEMORY = 1.3
# The aim is 1.5. Series on two quiet cores gave 1.38 to 1.65, beside other tests 1.45 to 1.9: the sha256 alone takes a
# third of a download at the loopback's speed. This bound only finds what became much slower.
TIME = 2.0

# In a process of its own: seconds, and the memory that it needed at its height beyond what it had before.
MEASURE = """
import json, resource, sys, time
import jax, numpy, nfnet_eqx as nfx
from huggingface_hub import HfApi, hf_hub_download

name, what, cache = sys.argv[1:]
nfx.from_pretrained("nfnet_cifar10")  # what the first call of all needs is no part of this one
numpy.ones(10**9, numpy.uint8)  # nor is what a virtual machine needs to get its memory from its host
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
open("/proc/self/clear_refs", "w").write("5")  # the height is counted from here
start = time.perf_counter()
if what == "download":
    for file in ("config.json", "model.safetensors"):
        hf_hub_download(name, file, cache_dir=cache)
else:
    ckpt = nfx.from_pretrained(name, cache_dir=cache)
    jax.block_until_ready(nfx.named_parameters(ckpt.model))
seconds = time.perf_counter() - start
height = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, height - before]))
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub with NFNet-F0."""
    folder = tmp_path_factory.mktemp("f0")
    config = get_config("dm_nfnet_f0")
    model = load_tensors(config, random_tensors(config), source="random")
    save_pretrained(Checkpoint(model=model, preprocess=Preprocess(), architecture="dm_nfnet_f0"), folder)
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.add(NAME, {path.name: path for path in folder.iterdir()})
        yield hub


def test_a_download_that_is_cut_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    size = hub.size(NAME, WEIGHTS)
    hub.cut(f"GET .*/resolve/.*{WEIGHTS}", after=size // 2)
    before = hub.sent
    pull(NAME, endpoint=hub.endpoint, cache_dir=tmp_path)
    # The client writes ten megabytes at a time; what it had of the last ones is lost.
    assert hub.sent - before < size + 2 * 10**7


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's memory accounting")
def test_f0_from_the_hub_into_arrays(hub: Hub, tmp_path: Path) -> None:
    size = hub.size(NAME, WEIGHTS)
    times: dict[str, list[float]] = {"download": [], "load": []}
    memory = []
    env = os.environ | {"HF_ENDPOINT": hub.endpoint, "JAX_PLATFORMS": "cpu"}
    # Noise only ever adds: the smallest of a few is what it costs. In turns, so that both meet the same noise.
    for _ in range(12):
        for what in times:
            command = [sys.executable, "-c", MEASURE, NAME, what, str(tmp_path / "cache")]
            result = subprocess.run(command, env=env, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            seconds, height = json.loads(result.stdout)
            times[what].append(seconds)
            if what == "load":
                memory.append(height)
            shutil.rmtree(tmp_path / "cache")
        if min(times["load"]) <= TIME * min(times["download"]):
            break
    memory_ratio, time_ratio = min(memory) / size, min(times["load"]) / min(times["download"])
    print(
        f"\nF0, {size:,} bytes: {time_ratio:.2f} times the download's time, {memory_ratio:.2f} times the file's memory"
    )
    assert memory_ratio <= MEMORY
    assert time_ratio <= TIME, times
