"""Normalizer-free networks (NFNets) for JAX, in Equinox."""

from typing import TYPE_CHECKING, Any

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import _variants
from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._count import Count, count
from nfnet_eqx.models._fold import fold
from nfnet_eqx.models._names import named_parameters
from nfnet_eqx.models._nfnet import NFNet, create_model
from nfnet_eqx.models._surgery import parameter_mask, replace_head, replace_in_channels
from nfnet_eqx.models._variants import get_config

if TYPE_CHECKING:
    from nfnet_eqx.checkpoints._checkpoint import Checkpoint, save_pretrained
    from nfnet_eqx.images._preprocess import Preprocess
    from nfnet_eqx.zoo.hub import from_pretrained
    from nfnet_eqx.zoo.push import push_to_hub

# The zoo stands above the core and needs more than JAX: its names load when they are first used.
_ZOO = {
    "Checkpoint": "nfnet_eqx.checkpoints._checkpoint",
    "Preprocess": "nfnet_eqx.images._preprocess",
    "from_pretrained": "nfnet_eqx.zoo.hub",
    "push_to_hub": "nfnet_eqx.zoo.push",
    "save_pretrained": "nfnet_eqx.checkpoints._checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _ZOO:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_ZOO[name]), name)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the family, or of its checkpoints.

    >>> list_models("eca_*_l0")
    ['eca_nfnet_l0']
    >>> list_models("eca_*_l0*", pretrained=True)
    ['eca_nfnet_l0.ra2_in1k']

    Args:
        pattern: only names that match this shell-style pattern.
        pretrained: the checkpoints that `from_pretrained` opens by their name alone, instead of the architectures:
            those that ship with the package, then those on the Hub. (DeepMind's are files to download;
            `nfnet-eqx list --pretrained` shows them too.)
    """
    if not pretrained:
        return _variants.list_models(pattern)
    import fnmatch

    from nfnet_eqx.zoo.catalog import catalog

    names = [published.name for published in catalog() if not published.url]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


__all__ = [
    "Checkpoint",
    "Count",
    "InputError",
    "NFNet",
    "NFNetConfig",
    "Preprocess",
    "count",
    "create_model",
    "fold",
    "from_pretrained",
    "get_config",
    "list_models",
    "named_parameters",
    "parameter_mask",
    "push_to_hub",
    "replace_head",
    "replace_in_channels",
    "save_pretrained",
]
