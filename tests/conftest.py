"""What holds for every test: the CPU, eight fake devices, no implicit promotion, no network, repeatable randomness."""

import itertools
import os
import tempfile
from collections.abc import Callable

# The reference outputs are float32 on a CPU; `JAX_PLATFORMS=cuda pytest ...` looks at another platform.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# No test sees this user's downloads or reaches the Hub: an empty cache, and an address at which nobody listens.
# huggingface_hub reads these when it is first imported, so they are set before anything else is.
_hub_cache = tempfile.TemporaryDirectory(prefix="nfnet-eqx-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _hub_cache.name
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
for _name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
    os.environ.pop(_name, None)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A compilation is slower than hypothesis' deadline, and a failure in CI must come back at one's desk.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def getkey() -> Callable[[], jax.Array]:
    """A function that returns another random key at each call, the same ones in each run of a test."""
    seeds = itertools.count()
    return lambda: jax.random.key(next(seeds))
