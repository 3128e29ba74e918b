"""How far two networks are from each other, and a network from timm's own: tensor by tensor, stage by stage."""

import importlib
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import config_to_timm
from nfnet_eqx.models import Network, NetworkConfig, WSConv2d, named_parameters, parameter_name, skeleton

Picture = Float[np.ndarray, "channels height width"]

# The operators without which torchvision's Python parts, all that timm needs of it, cannot be imported.
_TORCHVISION = [f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")]
# Their declarations, which last as long as these objects do.
_declared: list[Any] = []


class Difference(NamedTuple):
    """What lies between two arrays of one name.

    Attributes:
        name: of a tensor or a stage.
        shape: of both arrays.
        same_bits: whether they are equal to the last bit (0.0 and -0.0 are not).
        max_abs: the largest absolute difference; NaN if there is a NaN in either.
        scale: the largest absolute value in either.
    """

    name: str
    shape: tuple[int, ...]
    same_bits: bool
    max_abs: float
    scale: float

    @property
    def relative(self) -> float:
        """The largest difference on the scale of the arrays."""
        return self.max_abs / self.scale if self.scale else self.max_abs


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The differences between arrays of the same names and shapes, in the order of `a`.

    Args:
        a: arrays by name: tensors (`named_parameters`) or stages (`run`).
        b: as many, of the same names and shapes.

    Raises:
        InputError: a name is in one of them only, or a shape differs; the first few are named.
    """
    faults = [f"{name} is missing in the second" for name in a if name not in b]
    faults += [f"{name} is missing in the first" for name in b if name not in a]
    faults += [
        f"{name} is {np.shape(a[name])} in the first and {np.shape(b[name])} in the second"
        for name in a
        if name in b and np.shape(a[name]) != np.shape(b[name])
    ]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise InputError(f"not the same network: {'; '.join(faults[:3])}{more}")
    return [_difference(name, np.asarray(a[name]), np.asarray(b[name])) for name in a]


def _difference(name: str, x: np.ndarray, y: np.ndarray) -> Difference:
    if x.dtype == y.dtype and np.array_equal(_bits(x), _bits(y)):
        return Difference(name, x.shape, True, 0.0 if np.isfinite(x).all() else float("nan"), _largest(x))
    with np.errstate(invalid="ignore"):  # infinity minus infinity: NaN is the answer
        return Difference(name, x.shape, False, _largest(x - y), max(_largest(x), _largest(y)))


def _bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x).max())


def convolutions(config: NetworkConfig) -> dict[str, WSConv2d]:
    """The standardized convolutions of a network by the names of their weights, with shapes in place of parameters."""
    leaves = jax.tree_util.tree_leaves_with_path(skeleton(config), is_leaf=lambda leaf: isinstance(leaf, WSConv2d))
    return {f"{parameter_name(path)}.weight": leaf for path, leaf in leaves if isinstance(leaf, WSConv2d)}


def standardized_difference(
    a: WSConv2d, b: WSConv2d, weight: np.ndarray, gain_a: np.ndarray, gain_b: np.ndarray
) -> float:
    """How far two convolutions with one weight and two gains are apart, on the scale of what they convolve with."""

    def filled(conv: WSConv2d, gain: np.ndarray) -> WSConv2d:
        return eqx.tree_at(lambda conv: (conv.weight, conv.gain), conv, (jnp.asarray(weight), jnp.asarray(gain)))

    difference, scale = map(float, _standardized_difference(filled(a, gain_a), filled(b, gain_b)))
    return difference / scale if scale else difference


@eqx.filter_jit
def _standardized_difference(a: WSConv2d, b: WSConv2d) -> tuple[Array, Array]:
    x, y = a.standardized(), b.standardized()
    return jnp.max(jnp.abs(x - y)), jnp.max(jnp.abs(x))


def noise(model: Network, seed: int = 0) -> Picture:
    """A picture to run a network on: standard normal noise."""
    side = model.config.trial_size
    return np.random.default_rng(seed).standard_normal((model.config.in_channels, side, side), dtype=np.float32)


def run(model: Network, picture: Picture) -> dict[str, np.ndarray]:
    """The feature maps and the logits (pooled features, if there is no classifier) of a picture, by name."""
    features, logits = _run(model, jnp.asarray(picture))
    return _named([np.asarray(feature) for feature in features], np.asarray(logits))


@eqx.filter_jit
def _run(model: Network, picture: Float[Array, "channels height width"]) -> tuple[tuple[Array, ...], Array]:
    return model.features_and_logits(picture, inference=True)


def _named(features: list[np.ndarray], logits: np.ndarray) -> dict[str, np.ndarray]:
    return {**{f"feature {i}": feature for i, feature in enumerate(features)}, "logits": logits}


def run_timm(architecture: str, model: Network, picture: Picture) -> dict[str, np.ndarray]:
    """What timm computes with the network's parameters, named as `run` names it.

    timm has one numerics: this is the function of a network with `numerics="timm"`.

    Args:
        architecture: the name to start from, where it is one of timm's.
        model: a network, not folded.
        picture: its input.

    Raises:
        InputError: timm is not installed or too old, or cannot build the network.
    """
    timm, torch = import_timm()
    name, model_args = config_to_timm(architecture, model.config.with_numerics("timm"))
    network = timm.create_model(name, **model_args).eval()
    if not hasattr(network, "forward_intermediates"):
        raise InputError(f"timm {timm.__version__} does not give the feature maps; 1.0.31 does")
    arrays = {name: np.array(jax.device_get(leaf), np.float32) for name, leaf in named_parameters(model).items()}
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    with torch.inference_mode():
        final, features = network.forward_intermediates(torch.from_numpy(picture[None].copy()))
        logits = network.forward_head(final)
    return _named([feature[0].numpy() for feature in features], logits[0].numpy())


def import_timm() -> tuple[Any, Any]:
    """The modules timm and torch.

    Raises:
        InputError: one is not installed, or cannot be imported; the message says why.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch = importlib.import_module("torch")
            _import_torchvision(torch)
            return importlib.import_module("timm"), torch
        except ModuleNotFoundError as error:
            raise InputError(f"{error.name} is not installed") from None
        except (ImportError, RuntimeError, OSError) as error:
            raise InputError(f"timm cannot be imported: {str(error).splitlines()[0]}") from None


def _import_torchvision(torch: Any) -> None:
    """Import torchvision, also where its C library does not load: beside a torch for another platform."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        # It suffices that they are declared; whoever calls one gets torch's error.
        library = torch.library.Library("torchvision", "DEF")
        for operator in _TORCHVISION:
            library.define(operator)
        _declared.append(library)
        importlib.import_module("torchvision")
