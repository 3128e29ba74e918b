"""Configurations of timm: what a config.json of its hub says, and how to say one of ours so that timm rebuilds it.

timm describes a network by the name of an architecture and the settings that differ from it (`model_args`). What those
mean is each family's own matter (`_timm_nfnet.py`, `_timm_vit.py`). The tensors need no conversion: ours are named and
laid out as timm's.

References:
    timm 1.0.31, `timm/models/_hub.py` and `timm/models/_builder.py` (Apache-2.0): the behaviour described here was read
    and measured there.
"""

import difflib
from typing import Any

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import _timm_nfnet, _timm_vit
from nfnet_eqx.models import NetworkConfig

_READERS = (_timm_nfnet.READER, _timm_vit.READER)
_READER_OF = {architecture: reader for reader in _READERS for architecture in reader.architectures}

# The names of the families' architectures in timm.
TIMM_ARCHITECTURES = tuple(_READER_OF)


def config_from_timm(config_json: dict[str, Any]) -> tuple[str, NetworkConfig]:
    """The network that timm would build from its config.json.

    Args:
        config_json: the parsed file: with `pretrained_cfg` (all published ones, with `model_args` since 2024), or the
            older flat layout.

    Returns:
        The name of the architecture, and its configuration (with timm's numerics).

    Raises:
        InputError: the architecture is unknown, or a setting is impossible or cannot be honoured; all are named.
    """
    architecture = config_json.get("architecture")
    if not isinstance(architecture, str) or architecture not in _READER_OF:
        near = difflib.get_close_matches(str(architecture), TIMM_ARCHITECTURES, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "is it another family's checkpoint?"
        families = " or ".join(reader.config.FAMILY for reader in _READERS)
        raise InputError(f"{architecture!r} is none of timm's {families} architectures; {hint}")
    reader = _READER_OF[architecture]
    model_args = config_json.get("model_args") or {}
    if not isinstance(model_args, dict):
        raise InputError(f"model_args must be an object, got {model_args!r}")
    pretrained_cfg = pretrained_cfg_from_timm(config_json)
    input_size = pretrained_cfg.get("input_size", [3])
    given = {
        "in_chans": input_size[0] if isinstance(input_size, list | tuple) and input_size else input_size,
        "num_classes": pretrained_cfg.get("num_classes", 1000),
        "drop_rate": 0.0,
        "drop_path_rate": 0.0,
    }
    settings = reader.architectures[architecture] | given | reader.given(config_json, pretrained_cfg) | model_args
    faults = reader.faults(settings)
    if pretrained_cfg.get("label_names") and not faults and settings["num_classes"] < 0:
        faults.append(f"num_classes must be 0 or more where label_names names classes, got {settings['num_classes']}")
    # True concerns Google's own files and not safetensors; a text names a loader of another format.
    if not isinstance(pretrained_cfg.get("custom_load"), bool | None):
        faults.append(f"custom_load (={pretrained_cfg['custom_load']!r}) in pretrained_cfg is not supported")
    if pretrained_cfg.get("label_offset"):
        faults.append(f"label_offset (={pretrained_cfg['label_offset']!r}) in pretrained_cfg is not supported")
    if faults:
        raise InputError(f"{architecture} in timm: " + "; ".join(faults))
    return architecture, reader.build(architecture, settings)


def pretrained_cfg_from_timm(config_json: dict[str, Any]) -> dict[str, Any]:
    """What a config.json says about preprocessing and classes, whichever of timm's layouts it has.

    Raises:
        InputError: `pretrained_cfg` is no object.
    """
    if "pretrained_cfg" not in config_json:
        outside = ("architecture", "num_features", "model_args", "nfnet_eqx", "library")
        flat = {key: value for key, value in config_json.items() if key not in outside}
        if "labels" in flat:
            flat["label_names"] = flat.pop("labels")
        return flat
    pretrained_cfg = config_json["pretrained_cfg"]
    if not isinstance(pretrained_cfg, dict):
        raise InputError(f"pretrained_cfg must be an object, got {pretrained_cfg!r}")
    outside = ("num_classes", "label_names", "label_descriptions")
    return pretrained_cfg | {key: config_json[key] for key in outside if key in config_json}


def config_to_timm(architecture: str, config: NetworkConfig) -> tuple[str, dict[str, Any]]:
    """How to tell timm to build a network: `timm.create_model(architecture, **model_args)`.

    Dropout and stochastic depth are left out, as timm itself leaves them out of its files.

    Args:
        architecture: the name to start from, where it is one of timm's; else the nearest of timm's is chosen.
        config: the network.

    Returns:
        The name of one of timm's architectures, and the fewest settings that make it this network.

    Raises:
        InputError: timm cannot build this network; the message says what stands in the way.
    """
    if config.numerics != "timm":
        raise InputError(f"timm has no numerics={config.numerics!r}; convert the checkpoint to numerics='timm' first")
    reader = _reader(config)
    names = [architecture] if architecture in reader.architectures else list(reader.architectures)
    # Said in timm's words and read back: only what comes back as the same network is one that timm can build.
    found, obstacles = [], []
    for name in names:
        model_args = reader.model_args(name, config)
        try:
            _, rebuilt = config_from_timm({"architecture": name, "model_args": model_args})
            different = reader.differences(config, rebuilt)
        except InputError as error:
            different = [str(error)]
        if different:
            obstacles.append(different)
        else:
            found.append((name, model_args))
    if not found:
        raise InputError(f"timm cannot build this network: it has no setting for {', '.join(min(obstacles, key=len))}")
    return min(found, key=lambda name_and_args: len(name_and_args[1]))


def global_pool_in_timm(config: NetworkConfig) -> str:
    """What timm calls a network's way of pooling."""
    return _reader(config).global_pool(config)


def _reader(config: NetworkConfig) -> Any:
    return next(reader for reader in _READERS if isinstance(config, reader.config))
