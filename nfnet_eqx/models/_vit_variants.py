"""The vision transformers as one table: every name, its architecture, and the image size that it is meant for.

Names and settings are timm's, with a class token in all but the two So400m/14, which pool by attention. The papers'
g/14 and G/14 pool by attention, too: `dataclasses.replace(config, pool="map", class_token=False)`.
`vit_micro_patch4_32` is ours, for images of 32 pixels.

References:
    2010.11929, table 1 (B, L); 2106.10270, table 2 (Ti, S); 2106.04560, table 2 (g, G); 2305.13035, section 4 (So400m).
"""

from nfnet_eqx.models._network import Variant
from nfnet_eqx.models._vit_config import ViTConfig

# Width, depth, MLP, heads.
_SHAPES = {
    "tiny": (192, 12, 768, 3),
    "small": (384, 12, 1536, 6),
    "base": (768, 12, 3072, 12),
    "large": (1024, 24, 4096, 16),
    "giant": (1408, 40, 6144, 16),
    "gigantic": (1664, 48, 8192, 16),
    "so400m": (1152, 27, 4304, 16),
    "micro": (128, 6, 512, 4),
}


def _config(shape: str, patch_size: int, image_size: int) -> ViTConfig:
    """With attention pooling and without class token, as the papers at scale have it."""
    width, depth, mlp_width, heads = _SHAPES[shape]
    return ViTConfig(
        image_size=image_size, patch_size=patch_size, width=width, depth=depth, heads=heads, mlp_width=mlp_width
    )


def _token(shape: str, patch_size: int) -> Variant:
    """With a class token that has a position, as the first ViTs were, at 224 pixels."""
    plain = _config(shape, patch_size, 224)
    fields = plain.to_dict() | {"pool": "token", "class_token": True, "prefix_positions": True}
    return Variant(ViTConfig.from_dict(fields), 224, 224)


VITS: dict[str, Variant] = {
    "vit_tiny_patch16_224": _token("tiny", 16),
    "vit_small_patch32_224": _token("small", 32),
    "vit_small_patch16_224": _token("small", 16),
    "vit_base_patch32_224": _token("base", 32),
    "vit_base_patch16_224": _token("base", 16),
    "vit_large_patch16_224": _token("large", 16),
    "vit_giant_patch14_224": _token("giant", 14),
    "vit_gigantic_patch14_224": _token("gigantic", 14),
    "vit_so400m_patch14_siglip_224": Variant(_config("so400m", 14, 224), 224, 224),
    "vit_so400m_patch14_siglip_378": Variant(_config("so400m", 14, 378), 378, 378),
    "vit_micro_patch4_32": Variant(_config("micro", 4, 32), 32, 32),
}
