"""What a network is: its configuration, the table of the family, and pure functions of arrays.

It knows no file format, no Hub and no image: a network's input is an array `(channels, height, width)`.
"""

from nfnet_eqx.models._activations import ActivationName
from nfnet_eqx.models._config import MAX_BLOCKS, NFNetConfig, Numerics, make_divisible
from nfnet_eqx.models._conv import FeatureMap, native_convolutions
from nfnet_eqx.models._count import Count, count
from nfnet_eqx.models._fold import fold
from nfnet_eqx.models._layers import WSConv2d
from nfnet_eqx.models._names import is_parameter, named_parameters, parameter_name, skeleton, with_parameters
from nfnet_eqx.models._nfnet import Block, NFNet, create_model, replaced
from nfnet_eqx.models._plan import net_stride, plan_blocks
from nfnet_eqx.models._surgery import parameter_mask, replace_head, replace_in_channels
from nfnet_eqx.models._variants import REGNET_WIDTHS, VARIANTS, Variant, get_config, get_variant, list_models

__all__ = [
    "MAX_BLOCKS",
    "REGNET_WIDTHS",
    "VARIANTS",
    "ActivationName",
    "Block",
    "Count",
    "FeatureMap",
    "NFNet",
    "NFNetConfig",
    "Numerics",
    "Variant",
    "WSConv2d",
    "count",
    "create_model",
    "fold",
    "get_config",
    "get_variant",
    "is_parameter",
    "list_models",
    "make_divisible",
    "named_parameters",
    "native_convolutions",
    "net_stride",
    "parameter_mask",
    "parameter_name",
    "plan_blocks",
    "replace_head",
    "replace_in_channels",
    "replaced",
    "skeleton",
    "with_parameters",
]
