"""A network of timm and ours with the same parameters, and what each computes."""

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest

from nfnet_eqx import Network
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints._tensors import load_tensors
from nfnet_eqx.checkpoints._timm import config_from_timm
from nfnet_eqx.convert._verify import import_timm, run
from tests.live.measured import note

try:
    timm, torch = import_timm()
except InputError as missing:
    pytest.skip(f"{missing}; `make test-parity` has all of it", allow_module_level=True)

# JAX has its threads beside these, on the same cores.
torch.set_num_threads(1)

TOLERANCE = 5e-6

# Settings that make a family small. Widths keep what makes them awkward: several groups, roundings, a stem that is
# wider than the first stage or narrower.
SMALL: dict[str, dict[str, Any]] = {
    "nfnet_f": {"channels": [32, 64, 96, 96], "stem_chs": 16, "group_size": 16, "num_features": 128},
    "nfnet_l": {"channels": [32, 64, 96, 96], "stem_chs": 48, "group_size": 8, "num_features": 144},
    "nf_regnet": {"num_features": 120},
    "nf_": {"channels": [32, 64, 96, 160], "stem_chs": 24},
    "test_nfnet": {},
}
DEPTHS = [1, 2, 2, 1]


class Pair(NamedTuple):
    """timm's network and ours."""

    theirs: Any
    ours: Network


def small(name: str) -> dict[str, Any]:
    """Settings of timm for a small network of a name's kind, with its own depths up to a few blocks a stage."""
    if name.startswith("vit_"):
        # Four patches a side, whatever they measure, and each name's own ratio of MLP to width.
        heads = 3 if "tiny" in name else 4
        size = 4 * timm.create_model(name, device="meta").patch_embed.patch_size[0]
        return {"embed_dim": 16 * heads, "depth": 3, "num_heads": heads, "img_size": size}
    cfg = timm.create_model(name, device="meta")
    family = next(kind for kind in SMALL if kind in name)
    settings = {"depths": [min(len(stage), most) for stage, most in zip(cfg.stages, DEPTHS, strict=True)]}
    if family == "nf_regnet":
        # The widths of this family differ from name to name.
        settings["channels"] = [stage[0].conv3.out_channels // 3 for stage in cfg.stages]
    return settings | SMALL[family]


def pair(architecture: str, *, seed: int = 0, **model_args: Any) -> Pair:
    """timm's network with random parameters, and ours as timm's config.json would make it, with the same ones."""
    theirs = timm.create_model(architecture, **model_args).eval()
    randomize(theirs, seed)
    _, config = config_from_timm({"architecture": architecture, "model_args": model_args})
    return Pair(theirs, load_tensors(config, arrays(theirs), source=architecture))


def randomize(model: Any, seed: int) -> None:
    """Parameters under which nothing is hidden: fresh gains are 0 at the end of every branch, fresh biases 0.

    The last layer is widened to logits of about unit size.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("gain"):
                parameter.copy_(1 + 0.2 * noise)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif name.endswith(("_token", "pos_embed")):
                parameter.copy_(0.5 * noise)
            else:
                fan_in = max(parameter[0].numel(), 1)
                parameter.copy_(noise * fan_in**-0.5)


def arrays(model: Any) -> dict[str, np.ndarray]:
    """The parameters of a network of timm."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def picture(size: int | tuple[int, int], channels: int = 3) -> np.ndarray:
    """Standard normal noise."""
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(size).standard_normal((channels, height, width), dtype=np.float32)


def timm_outputs(model: Any, x: np.ndarray, *, double: bool = False) -> dict[str, np.ndarray]:
    """What timm computes, named as `run` names it; with `double`, in float64."""
    batch = torch.from_numpy(x[None])
    if double:
        model, batch = copy.deepcopy(model).double(), batch.double()
    with torch.no_grad():
        _, features = model.forward_intermediates(batch)
        logits = model(batch)
    return {f"feature {i}": feature[0].numpy() for i, feature in enumerate(features)} | {"logits": logits[0].numpy()}


def our_outputs(model: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """What we compute, operation by operation: no compilation of the whole, each operation's is kept for the next."""
    features, logits = model.features_and_logits(x, inference=True)
    arrays = {f"feature {i}": feature for i, feature in enumerate(features)} | {"logits": logits}
    return {name: np.asarray(array) for name, array in arrays.items()}


def assert_equal_outputs(pair: Pair, x: np.ndarray, where: str, *, jit: bool = True) -> None:
    """Ours are timm's, as closely as float32 allows.

    The bound of 5e-6 is one of unit scale: a feature map that reaches 10 has it at 5e-5. How much of that is rounding
    is seen in float64, of which our float32 may be no more than four times as far as timm's own (or as two units in
    the last place, where timm's happens to hit it).
    """
    ours = (run if jit else our_outputs)(pair.ours, x)
    theirs, exact = timm_outputs(pair.theirs, x), timm_outputs(pair.theirs, x, double=True)
    assert {name: array.shape for name, array in ours.items()} == {n: array.shape for n, array in theirs.items()}
    for name in ours:
        kind, place = name.split()[0], f"{where}, {name}"
        scale = max(1.0, _largest(exact[name]))
        plain = _largest(ours[name] - theirs[name])
        note(f"difference to timm, {kind}", plain, f"{place}, which reaches {scale:.1f}")
        assert (
            note(f"difference to timm over the largest value (at least 1), {kind}", plain / scale, place) <= TOLERANCE
        ), f"{place}: {plain:.1e} from timm, of {scale:.1f}"
        error, their_error = _largest(ours[name] - exact[name]), _largest(theirs[name] - exact[name])
        ratio = error / max(their_error, 2.4e-7 * scale)
        assert note(f"error against float64 over timm's own, {kind}", ratio, place) <= 4, (
            f"{place}: {error:.1e} from float64, timm {their_error:.1e}"
        )


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max())
