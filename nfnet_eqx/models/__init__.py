"""What a network is: its configuration, the table of the family, and pure functions of arrays.

It knows no file format, no Hub and no image: a network's input is an array `(channels, height, width)`.
"""

from nfnet_eqx.models._activations import ActivationName
from nfnet_eqx.models._config import NFNetConfig, make_divisible
from nfnet_eqx.models._conv import FeatureMap, native_convolutions
from nfnet_eqx.models._devices import DEVICES, Device, device_hours, measured_utilisation
from nfnet_eqx.models._families import (
    VARIANTS,
    config_from_dict,
    count,
    create_model,
    fold,
    get_config,
    get_variant,
    init_network,
    list_models,
    skeleton,
)
from nfnet_eqx.models._flops import flops
from nfnet_eqx.models._layers import WSConv2d
from nfnet_eqx.models._names import (
    is_below,
    is_classifier_weight,
    is_parameter,
    layers_below_head,
    named_parameters,
    parameter_name,
    with_parameters,
)
from nfnet_eqx.models._network import MAX_BLOCKS, AnyNetwork, Count, Network, NetworkConfig, Numerics, Variant
from nfnet_eqx.models._nfnet import NFNet
from nfnet_eqx.models._plan import plan_blocks
from nfnet_eqx.models._surgery import parameter_mask, replace_head, replace_in_channels
from nfnet_eqx.models._variants import NFNETS, REGNET_WIDTHS
from nfnet_eqx.models._vit import ViT
from nfnet_eqx.models._vit_config import ViTActivation, ViTConfig
from nfnet_eqx.models._vit_variants import VITS

__all__ = [
    "DEVICES",
    "MAX_BLOCKS",
    "NFNETS",
    "REGNET_WIDTHS",
    "VARIANTS",
    "VITS",
    "ActivationName",
    "AnyNetwork",
    "Count",
    "Device",
    "FeatureMap",
    "NFNet",
    "NFNetConfig",
    "Network",
    "NetworkConfig",
    "Numerics",
    "Variant",
    "ViT",
    "ViTActivation",
    "ViTConfig",
    "WSConv2d",
    "config_from_dict",
    "count",
    "create_model",
    "device_hours",
    "flops",
    "fold",
    "get_config",
    "get_variant",
    "init_network",
    "is_below",
    "is_classifier_weight",
    "is_parameter",
    "layers_below_head",
    "list_models",
    "make_divisible",
    "measured_utilisation",
    "named_parameters",
    "native_convolutions",
    "parameter_mask",
    "parameter_name",
    "plan_blocks",
    "replace_head",
    "replace_in_channels",
    "skeleton",
    "with_parameters",
]
