"""Normalizer-free networks (NFNets) for JAX, in Equinox."""

import typing as _typing

from nfnet_eqx._errors import InputError

if _typing.TYPE_CHECKING:
    from nfnet_eqx.checkpoints import Checkpoint, save_pretrained
    from nfnet_eqx.images import Preprocess
    from nfnet_eqx.models import (
        Count,
        Network,
        NetworkConfig,
        NFNet,
        NFNetConfig,
        ViT,
        ViTConfig,
        count,
        create_model,
        flops,
        fold,
        get_config,
        named_parameters,
        parameter_mask,
        replace_head,
        replace_in_channels,
    )
    from nfnet_eqx.zoo import from_pretrained, push_to_hub

# A name loads its package when it is first used: the command starts without JAX, and JAX without the Hub's client.
_LAZY = {
    "nfnet_eqx.checkpoints": ("Checkpoint", "save_pretrained"),
    "nfnet_eqx.images": ("Preprocess",),
    "nfnet_eqx.models": (
        "Count",
        "NFNet",
        "NFNetConfig",
        "Network",
        "NetworkConfig",
        "ViT",
        "ViTConfig",
        "count",
        "create_model",
        "flops",
        "fold",
        "get_config",
        "named_parameters",
        "parameter_mask",
        "replace_head",
        "replace_in_channels",
    ),
    "nfnet_eqx.zoo": ("from_pretrained", "push_to_hub"),
}
_PACKAGE_OF = {name: package for package, names in _LAZY.items() for name in names}
# `nfx.train.train(...)` after `import nfnet_eqx as nfx` alone.
_PACKAGES = ("checkpoints", "convert", "data", "images", "models", "optim", "scaling", "train", "zoo")


def __getattr__(name: str) -> _typing.Any:
    import importlib

    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PACKAGE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PACKAGE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__, *_PACKAGES})


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
        from nfnet_eqx.models import list_models as architectures

        return architectures(pattern)
    import fnmatch

    from nfnet_eqx.zoo import catalog

    names = [published.name for published in catalog() if not published.url]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


__all__ = [
    "Checkpoint",
    "Count",
    "InputError",
    "NFNet",
    "NFNetConfig",
    "Network",
    "NetworkConfig",
    "Preprocess",
    "ViT",
    "ViTConfig",
    "count",
    "create_model",
    "flops",
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
