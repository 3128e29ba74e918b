"""The families of networks, and what follows from a name or a configuration whichever family it is of."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import PRNGKeyArray

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._count import count_nfnet
from nfnet_eqx.models._fold import fold_nfnet
from nfnet_eqx.models._layers import InitKey, ShapesOnly
from nfnet_eqx.models._network import AnyNetwork, Count, Network, NetworkConfig, Variant
from nfnet_eqx.models._nfnet import NFNet
from nfnet_eqx.models._variants import NFNETS
from nfnet_eqx.models._vit import ViT
from nfnet_eqx.models._vit_config import ViTConfig
from nfnet_eqx.models._vit_count import count_vit
from nfnet_eqx.models._vit_variants import VITS


class Family(NamedTuple):
    """One family: all that the functions below have to know of it.

    Attributes:
        config: the class of its configurations.
        network: the class of its networks, made of a configuration and a key.
        counted: parameters and multiply-adds of a configuration at `(height, width)`.
        folded: a network as the same function for inference.
        variants: the table of its published architectures.
    """

    config: type[NetworkConfig]
    network: Callable[..., Network]
    counted: Callable[[Any, tuple[int, int]], Count]
    folded: Callable[[Any], Network]
    variants: Mapping[str, Variant]


# By the word that stands for a family in files; where there is none, it is the first.
_FAMILIES = {
    "nfnet": Family(NFNetConfig, NFNet, count_nfnet, fold_nfnet, NFNETS),
    # There is nothing in a ViT that only training needs.
    "vit": Family(ViTConfig, ViT, count_vit, lambda model: model, VITS),
}

VARIANTS: dict[str, Variant] = {name: row for family in _FAMILIES.values() for name, row in family.variants.items()}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the architectures that match a shell-style pattern, family by family.

    >>> list_models("eca_*_l0")
    ['eca_nfnet_l0']
    """
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name, pattern)]


def get_variant(name: str) -> Variant:
    """The architecture called `name` together with its published picture sizes.

    Raises:
        InputError: there is no such name; the message lists the nearest ones.
    """
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "nfnet_eqx.list_models() names them all."
        raise InputError(f"unknown architecture {name!r}; {hint}")
    return VARIANTS[name]


def get_config(name: str) -> Any:
    """The architecture called `name`, with 1000 classes and without dropout.

    >>> get_config("dm_nfnet_f0").widths
    (256, 512, 1536, 1536)

    Raises:
        InputError: there is no such name.
    """
    return get_variant(name).config


def config_from_dict(fields: dict[str, Any]) -> NetworkConfig:
    """A configuration from the output of `to_dict`, of the family that it names.

    >>> config_from_dict(get_config("dm_nfnet_f0").to_dict()) == get_config("dm_nfnet_f0")
    True

    Raises:
        InputError: there is no such family, or a field is unknown, missing or impossible.
    """
    name = fields.get("family", next(iter(_FAMILIES)))
    if name not in _FAMILIES:
        raise InputError(f"family must be one of {', '.join(map(repr, _FAMILIES))}, got {name!r}")
    return _FAMILIES[name].config.from_dict(fields)


def init_network(config: NetworkConfig, *, key: InitKey) -> Network:
    """A network with fresh parameters, in float32.

    Args:
        config: the architecture.
        key: randomness of the initial weights.

    Raises:
        InputError: the configuration describes no network.
    """
    return _family(config).network(config, key=key)


def create_model(name: str, *, key: PRNGKeyArray, num_classes: int = 1000, in_channels: int = 3) -> Any:
    """A freshly initialised network of one of the families.

    For any other change of the architecture, use `dataclasses.replace` on `get_config(name)` and call
    `nfnet_eqx.models.init_network`.

    Args:
        name: one of `list_models()`.
        key: randomness of the initial weights.
        num_classes: outputs of the classifier; 0 gives pooled features.
        in_channels: channels of the pictures.

    Raises:
        InputError: there is no such name, or a number is impossible.
    """
    config = dataclasses.replace(get_config(name), num_classes=num_classes, in_channels=in_channels)
    return init_network(config, key=key)


def skeleton(config: NetworkConfig) -> Any:
    """The network with shapes in place of arrays: nothing is allocated."""
    return eqx.filter_eval_shape(_family(config).network, config, key=ShapesOnly())


def count(config: NetworkConfig, image_size: int | tuple[int, int]) -> Count:
    """Counts the parameters and multiply-adds of a network.

    >>> count(get_config("dm_nfnet_f0"), 256)
    Count(parameters=71489284, macs=12384198656)

    Args:
        config: the architecture.
        image_size: side of the picture in pixels, or `(height, width)`.

    Raises:
        InputError: the network cannot take pictures of that size.

    References:
        2102.06171, table 3.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if fault := config.size_fault(*size):
        raise InputError(f"image_size (={image_size}) must be {fault}")
    return _family(config).counted(config, size)


def fold(model: AnyNetwork) -> AnyNetwork:
    """The same function with everything folded that only training needs, for inference.

    An NFNet's weight standardization, gains and gamma become plain convolutions. Nothing is approximated: a convolution
    is linear in its weight, and the factors gamma and beta on its input move into it. The result has fewer parameters
    (no `gain`), is no longer meant to be trained, and cannot be saved as a checkpoint. A ViT stays as it is.

    References:
        2102.06171, section 2 (the factors); the folding is ours.
    """
    return _family(model.config).folded(model)  # pyright: ignore[reportReturnType]


def _family(config: NetworkConfig) -> Family:
    return next(family for family in _FAMILIES.values() if type(config) is family.config)
