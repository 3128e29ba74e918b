"""Parameters and multiply-adds of the vision transformers: as published, and as the network itself has them."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from nfnet_eqx import InputError, ViTConfig, count, get_config, named_parameters
from nfnet_eqx.models import VITS, is_parameter, skeleton

# timm's own counts, with 1000 classes (measured on timm 1.0.31), and numbers of arrays; the last one is ours.
PARAMETERS = {
    "vit_tiny_patch16_224": (5_717_416, 152),
    "vit_small_patch32_224": (22_878_952, 152),
    "vit_small_patch16_224": (22_050_664, 152),
    "vit_base_patch32_224": (88_224_232, 152),
    "vit_base_patch16_224": (86_567_656, 152),
    "vit_large_patch16_224": (304_326_632, 296),
    "vit_giant_patch14_224": (1_012_611_432, 488),
    "vit_gigantic_patch14_224": (1_844_440_680, 584),
    "vit_so400m_patch14_siglip_224": (428_833_704, 344),
    "vit_so400m_patch14_siglip_378": (429_378_600, 344),
    "vit_micro_patch4_32": (1_531_496, 92),
}


def parameters_of(config: ViTConfig) -> int:
    return sum(math.prod(a.shape) for a in named_parameters(skeleton(config)).values())


@pytest.mark.parametrize("name", VITS)
def test_parameters_are_timms(name: str):
    config = get_config(name)
    shapes = named_parameters(skeleton(config))
    assert (parameters_of(config), len(shapes)) == PARAMETERS[name]
    assert count(config, config.image_size).parameters == PARAMETERS[name][0]


def test_every_kind_is_counted_as_it_is(vit: ViTConfig):
    assert count(vit, (16, 24)).parameters == parameters_of(vit)


@pytest.mark.parametrize(
    ("name", "head", "size", "parameters", "gflops"),
    [
        # 2305.13035, table 2, and 2106.04560, table 2: without a classifier, two operations a multiply-add. The figures
        # of g/14 and G/14 are those of the trunk, the same with a class token; G/14 with attention pooling is 1882M.
        ("vit_large_patch16_224", "token", 224, 303e6, 122.9),
        ("vit_giant_patch14_224", "token", 224, 1011e6, 533.1),
        ("vit_gigantic_patch14_224", "token", 224, 1843e6, 965.3),
        ("vit_gigantic_patch14_224", "map", 224, 1882e6, 965.3),
        ("vit_so400m_patch14_siglip_224", "map", 224, 428e6, 221),
        ("vit_so400m_patch14_siglip_224", "map", 384 // 14 * 14, 428e6, 672),
    ],
)
def test_the_papers_figures_are_met_within_half_a_percent(
    name: str, head: str, size: int, parameters: float, gflops: float
):
    token = head == "token"
    fields = {"pool": head, "class_token": token, "prefix_positions": token, "num_classes": 0}
    costs = count(dataclasses.replace(get_config(name), **fields), size)
    assert costs.parameters == pytest.approx(parameters, rel=0.005)
    assert 2 * costs.macs / 1e9 == pytest.approx(gflops, rel=0.005)


@pytest.mark.parametrize("kind", ["map", "token, registers"])
def test_multiply_adds_are_those_that_xla_counts(kind: str, vits: dict[str, ViTConfig]):
    """Wide enough that what is no product does not count."""
    config = dataclasses.replace(vits[kind], width=512, mlp_width=2048, image_size=32, depth=1)
    parameters, rest = eqx.partition(skeleton(config), is_parameter)
    step = jax.jit(lambda parameters, x: eqx.combine(parameters, rest)(x))
    flops = step.lower(parameters, jax.ShapeDtypeStruct((3, 32, 32), jnp.float32)).compile().cost_analysis()["flops"]  # pyright: ignore[reportOptionalSubscript, reportArgumentType]
    assert flops == pytest.approx(2 * count(config, 32).macs, rel=0.03)


def test_a_size_between_patches_is_refused():
    with pytest.raises(InputError, match=r"image_size \(=100\) must be a multiple of 16 pixels high and wide"):
        count(get_config("vit_base_patch16_224"), 100)
