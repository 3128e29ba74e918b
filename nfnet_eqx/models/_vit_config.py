"""`ViTConfig`: everything that decides which function a vision transformer computes."""

import dataclasses
from typing import ClassVar, Literal

from nfnet_eqx._fields import Bounds, check_fields
from nfnet_eqx.models._network import MAX_BLOCKS, MAX_WIDTH, NetworkConfig

Pool = Literal["map", "token", "mean"]
Positions = Literal["learned", "sincos2d"]
ViTActivation = Literal["gelu", "gelu_tanh", "quick_gelu"]

MAX_IMAGE = 8192
MAX_REGISTERS = 1024

_CITATION = """\
Vision transformers ([2010.11929](https://arxiv.org/abs/2010.11929)); attention pooling, and what they reach with more
compute ([2106.04560](https://arxiv.org/abs/2106.04560)):

```bibtex
@inproceedings{dosovitskiy2021image,
  title     = {An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale},
  author    = {Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and Zhai, Xiaohua
               and Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias and Heigold, Georg
               and Gelly, Sylvain and Uszkoreit, Jakob and Houlsby, Neil},
  booktitle = {International Conference on Learning Representations},
  year      = {2021}
}

@inproceedings{zhai2022scaling,
  title     = {Scaling Vision Transformers},
  author    = {Zhai, Xiaohua and Kolesnikov, Alexander and Houlsby, Neil and Beyer, Lucas},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2022}
}
```"""

_BOUNDS = NetworkConfig.BOUNDS | {
    "image_size": Bounds(1, MAX_IMAGE),
    "patch_size": Bounds(1, 256),
    "width": Bounds(1, MAX_WIDTH),
    "depth": Bounds(1, MAX_BLOCKS),
    "heads": Bounds(1, MAX_WIDTH),
    "mlp_width": Bounds(1, MAX_WIDTH),
    "registers": Bounds(0, MAX_REGISTERS),
    "norm_eps": Bounds(0, 1, above=True),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(NetworkConfig):
    """The architecture of one vision transformer: patches, equal pre-norm blocks, a head.

    Attributes:
        image_size: side of the image, in pixels, that learned positions are stored for; images of other sizes are
            taken, too (`at_image_size`).
        patch_size: side of a patch, in pixels.
        width: length of a token.
        depth: number of blocks.
        heads: number of attention heads; they divide the width.
        mlp_width: hidden width of the MLPs, exactly.
        pool: what the head sees. `"map"`: one learned query's attention to all patches, then an MLP; `"token"`: the
            class token; `"mean"`: the patches' mean. The last normalization comes before pooling, and after it for
            `"mean"`.
        class_token: whether a learned token stands before the patches.
        registers: how many more such tokens there are, which no head reads.
        positions: `"learned"`: one vector a position, resampled for another image size; `"sincos2d"`: fixed sines and
            cosines of row and column, computed for any image size, patch by patch.
        prefix_positions: whether learned positions cover class token and registers as well (timm: not
            `no_embed_class`).
        activation: of the MLPs. `"gelu"` is the erf form, `"quick_gelu"` is `x * sigmoid(1.702 x)`.
        norm_eps: added to the variance in every normalization.
        qkv_bias: whether queries, keys and values of the blocks have biases.
        family: what a file calls this family.

    Raises:
        InputError: naming every field whose value is impossible, and why.

    References:
        Dosovitskiy et al., "An Image is Worth 16x16 Words" (2010.11929); Zhai et al., "Scaling Vision Transformers"
        (2106.04560): `pool="map"` without class token; Beyer et al., "Better plain ViT baselines for ImageNet-1k"
        (2205.01580): `"sincos2d"` and `"mean"`; Darcet et al., "Vision Transformers Need Registers" (2309.16588).
    """

    FAMILY: ClassVar[str] = "ViT"
    DESCRIPTION: ClassVar[str] = "vision transformer (ViT)"
    CITATION: ClassVar[str] = _CITATION
    BOUNDS: ClassVar[dict[str, Bounds]] = _BOUNDS

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    pool: Pool = "map"
    class_token: bool = False
    registers: int = 0
    positions: Positions = "learned"
    prefix_positions: bool = False
    activation: ViTActivation = "gelu"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    family: Literal["vit"] = "vit"

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS, _combined_faults)

    @property
    def grid_size(self) -> int:
        """Patches along one side of an image of `image_size`."""
        return self.image_size // self.patch_size

    @property
    def prefix_tokens(self) -> int:
        """How many tokens stand before the patches."""
        return int(self.class_token) + self.registers

    @property
    def stored_positions(self) -> int:
        """How many learned positions there are."""
        if self.positions != "learned":
            return 0
        return self.grid_size**2 + (self.prefix_tokens if self.prefix_positions else 0)

    @property
    def feature_width(self) -> int:
        """Length of the pooled features, the input of the classifier."""
        return self.width

    @property
    def first_conv(self) -> str:
        """The name of the convolution that sees the image."""
        return "patch_embed.proj"

    @property
    def classifier(self) -> str:
        """The name of the classifier, a linear layer."""
        return "head"

    @property
    def trial_size(self) -> int:
        """Side of the image whose positions are stored: the one size that timm takes, too."""
        return self.image_size

    def size_fault(self, height: int, width: int) -> str | None:
        """Height and width must be multiples of the patch: no pixel is left out, and none is made up."""
        if min(height, width) > 0 and height % self.patch_size == width % self.patch_size == 0:
            return None
        return f"a multiple of {self.patch_size} pixels high and wide (the patches' side)"

    def at_image_size(self, side: int) -> "ViTConfig":
        """The architecture whose learned positions are stored for images of another size."""
        return dataclasses.replace(self, image_size=side)


def _combined_faults(config: ViTConfig) -> list[str]:
    """Values that are possible one by one, and not together."""
    faults = []
    if config.image_size % config.patch_size:
        faults.append(f"image_size (={config.image_size}) must be a multiple of patch_size (={config.patch_size})")
    if config.width % config.heads:
        faults.append(f"heads (={config.heads}) must divide width (={config.width})")
    if config.pool == "token" and not config.class_token:
        faults.append("pool='token' needs class_token=True")
    if config.positions == "sincos2d" and config.width % 4:
        faults.append(f"width (={config.width}) must be a multiple of 4 where positions are 'sincos2d'")
    if config.positions == "sincos2d" and config.prefix_positions:
        faults.append("prefix_positions=True needs positions='learned': sines and cosines are of rows and columns")
    return faults
