"""`NFNetConfig`: everything that decides which function a network computes."""

import dataclasses
import math
from typing import ClassVar, Literal

from nfnet_eqx._fields import Bounds, check_fields, shown
from nfnet_eqx.models._activations import ActivationName
from nfnet_eqx.models._network import MAX_BLOCKS, MAX_WIDTH, NetworkConfig, Numerics

Attention = Literal["se", "eca"]
Block = Literal["resnet", "regnet"]
GammaIn = Literal["activation", "weight"]
OutputStride = Literal[8, 16, 32]
Padding = Literal["same", "symmetric"]

# JAX sorts the keys of a dict: "conv10" would come before "conv2".
MAX_STEM = 9

_CITATION = """\
The networks, and adaptive gradient clipping ([2102.06171](https://arxiv.org/abs/2102.06171)); what they reach with more
compute ([2310.16764](https://arxiv.org/abs/2310.16764)):

```bibtex
@inproceedings{brock2021high,
  title     = {High-Performance Large-Scale Image Recognition Without Normalization},
  author    = {Brock, Andrew and De, Soham and Smith, Samuel L. and Simonyan, Karen},
  booktitle = {Proceedings of the 38th International Conference on Machine Learning},
  year      = {2021},
  note      = {arXiv:2102.06171}
}

@article{smith2023convnets,
  title   = {ConvNets Match Vision Transformers at Scale},
  author  = {Smith, Samuel L. and Brock, Andrew and Berrada, Leonard and De, Soham},
  journal = {arXiv preprint arXiv:2310.16764},
  year    = {2023}
}
```"""

_BOUNDS = NetworkConfig.BOUNDS | {
    "depths": Bounds(1, MAX_BLOCKS),
    "widths": Bounds(1, MAX_WIDTH),
    "stem_widths": Bounds(1, MAX_WIDTH),
    "stem_strides": Bounds(1, 2),
    "stem_kernel": Bounds(1, 15),
    "stage_strides": Bounds(1, 2),
    "bottleneck_ratio": Bounds(1e-3, 16),
    "group_size": Bounds(1, MAX_WIDTH),
    "alpha": Bounds(-1e3, 1e3),
    "attention_gain": Bounds(-1e3, 1e3),
    "se_ratio": Bounds(1e-3, 16),
    "se_divisor": Bounds(1, MAX_WIDTH),
    "eca_gamma": Bounds(1e-3, 1e3),
    "eca_beta": Bounds(-1e3, 1e3),
    "num_features": Bounds(1, MAX_WIDTH),
    "channel_divisor": Bounds(1, MAX_WIDTH),
    "std_conv_eps": Bounds(0, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NFNetConfig(NetworkConfig):
    """The architecture of one normalizer-free network.

    Every number here is final: widths are the channel counts that the arrays have, nothing is scaled or rounded later
    except the inner widths that follow from ratios (`bottleneck_ratio`, `se_ratio`).

    Attributes:
        depths: blocks in each stage.
        widths: output channels of each stage.
        stem_widths: output channels of each stem convolution; activations stand between them, none after the last.
        stem_strides: stride of each stem convolution.
        stem_kernel: kernel size of the stem convolutions.
        stem_pool: whether a 3x3 max-pool of stride 2 ends the stem (NF-ResNet).
        stage_strides: stride of the first block of each stage.
        block: `"resnet"`: the bottleneck is `bottleneck_ratio` of the block's *output* width and attention ends the
            branch. `"regnet"`: it is a multiple of the *input* width (1.0 in the very first block) and attention stands
            before the last convolution.
        bottleneck_ratio: width of the 3x3 convolutions relative to the block's output (or input, see `block`).
        bottleneck_floor: round the bottleneck down to whole groups, as both released code bases do. `False` keeps it
            whole, in `bottleneck // group_size` groups; only so does the parameter count of NFNet-F4+ come out as the
            paper prints it (527M; with the floor it is 525M).
        extra_conv: whether a block has a second 3x3 convolution.
        group_size: channels in a group of the 3x3 convolutions; `None` is one group.
        activation: the nonlinearity. `"gelu"` is the erf form under `numerics="timm"`, tanh under `"deepmind"`.
        gamma_in: where the activation's variance-preserving constant gamma stands: multiplied to the activation
            (DeepMind) or into the standardized weight (timm's own variants). The two are different functions.
        padding: `"same"` as TensorFlow pads (extra pixel last), or `"symmetric"` as PyTorch does.
        skipinit: whether each residual branch ends in a learnable scalar, initially 0.
        alpha: scale of each residual branch.
        attention: squeeze-and-excite, efficient channel attention, or `None`.
        attention_gain: factor on the attention's output.
        se_ratio: hidden width of squeeze-and-excite relative to its input.
        se_divisor: the hidden width is rounded to a multiple of this.
        eca_gamma: kernel size of efficient channel attention is about `(log2(channels) + eca_beta) / eca_gamma`.
        eca_beta: see `eca_gamma`.
        num_features: output channels of the 1x1 convolution before the head; `None`: there is none.
        channel_divisor: bottleneck widths are rounded to a multiple of this.
        std_conv_eps: added to the weight variance under `numerics="timm"` (`"deepmind"` has a floor of its own).
        numerics: which of the two published functions of the same weights this is. `"timm"`: erf GELU,
            `rsqrt(var + eps)`, stochastic depth rescaled. `"deepmind"`: tanh GELU, `rsqrt(max(var * fan_in, 1e-4))`,
            stochastic depth not rescaled.
        output_stride: 32, 16 or 8; strides beyond it become dilations.
        zero_init_head: start the classifier's weight at 0 instead of N(0, 0.01^2).

    Raises:
        InputError: naming every field whose value is impossible, and why.

    References:
        Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization" (2102.06171), sections 3
        and 4, appendix C; Brock et al., "Characterizing signal propagation to close the performance gap in
        unnormalized ResNets" (2101.08692).
    """

    FAMILY: ClassVar[str] = "NFNet"
    DESCRIPTION: ClassVar[str] = "normalizer-free network (NFNet)"
    CITATION: ClassVar[str] = _CITATION
    BOUNDS: ClassVar[dict[str, Bounds]] = _BOUNDS

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem_widths: tuple[int, ...]
    stem_strides: tuple[int, ...]
    stem_kernel: int = 3
    stem_pool: bool = False
    stage_strides: tuple[int, ...] = (1, 2, 2, 2)
    block: Block = "resnet"
    bottleneck_ratio: float = 0.5
    bottleneck_floor: bool = True
    extra_conv: bool = True
    group_size: int | None = 128
    activation: ActivationName = "gelu"
    gamma_in: GammaIn = "weight"
    padding: Padding = "symmetric"
    skipinit: bool = False
    alpha: float = 0.2
    attention: Attention | None = "se"
    attention_gain: float = 2.0
    se_ratio: float = 0.5
    se_divisor: int = 8
    eca_gamma: float = 2.0
    eca_beta: float = 1.0
    num_features: int | None = None
    channel_divisor: int = 8
    std_conv_eps: float = 1e-5
    numerics: Numerics = "timm"  # pyright: ignore[reportIncompatibleMethodOverride]
    output_stride: OutputStride = 32
    zero_init_head: bool = False

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS, _combined_faults)

    @property
    def stem_stride(self) -> int:
        """Total stride of the stem."""
        return math.prod(self.stem_strides) * (2 if self.stem_pool else 1)

    @property
    def net_stride(self) -> int:
        """How many input pixels one pixel of the last feature map stands for, along one side."""
        stride = self.stem_stride
        for stage_stride in self.stage_strides:
            # Beyond `output_stride` strides become dilations.
            stride *= stage_stride if stride < self.output_stride else 1
        return stride

    @property
    def feature_width(self) -> int:
        """Channels of the pooled features, the input of the classifier."""
        return self.num_features or self.widths[-1]

    @property
    def first_conv(self) -> str:
        """The name of the convolution that sees the image: timm numbers those of a deep stem only."""
        return "stem.conv" if len(self.stem_widths) == 1 else "stem.conv1"

    @property
    def classifier(self) -> str:
        """The name of the classifier, a linear layer."""
        return "head.fc"

    @property
    def trial_size(self) -> int:
        """Side of an image with four pixels in the last feature map."""
        return 4 * self.net_stride

    def size_fault(self, height: int, width: int) -> str | None:
        """An image must be as large as the network's stride, and may be of any size from there on."""
        if min(height, width) >= self.net_stride:
            return None
        return f"at least {self.net_stride} pixels high and wide (the network's stride)"

    def with_numerics(self, numerics: Numerics) -> "NFNetConfig":
        """The architecture with one of the two published functions of the same weights."""
        return dataclasses.replace(self, numerics=numerics)


def make_divisible(value: float, divisor: int, round_limit: float = 0.9) -> int:
    """`value` rounded to a multiple of `divisor`, but never below `round_limit * value` (timm's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * value else rounded


def _combined_faults(config: NFNetConfig) -> list[str]:
    """Values that are possible one by one, and not together."""
    faults = []
    if not len(config.depths) == len(config.widths) == len(config.stage_strides):
        faults.append(
            f"depths, widths and stage_strides need one entry a stage, got {shown(config.depths)}, "
            f"{shown(config.widths)} and {shown(config.stage_strides)}"
        )
    if len(config.stem_widths) != len(config.stem_strides):
        faults.append(
            f"stem_widths and stem_strides need one entry a convolution, got {shown(config.stem_widths)} and "
            f"{shown(config.stem_strides)}"
        )
    if sum(config.depths) > MAX_BLOCKS:
        faults.append(f"depths add up to {sum(config.depths)} blocks, more than {MAX_BLOCKS}")
    if len(config.stem_widths) > MAX_STEM:
        faults.append(f"stem_widths has {len(config.stem_widths)} entries, more than {MAX_STEM}")
    if config.padding == "symmetric" and config.stem_kernel % 2 == 0:
        faults.append(f"stem_kernel must be odd where padding is 'symmetric', got {config.stem_kernel}; use 'same'")
    return faults
