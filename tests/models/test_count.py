"""Parameters and multiply-adds of all 45 NFNets: as published, and as the network itself has them."""

import dataclasses
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from nfnet_eqx import InputError, NFNetConfig, count, get_config
from nfnet_eqx.models import NFNETS
from nfnet_eqx.models._families import get_variant, skeleton
from nfnet_eqx.models._names import named_parameters


class Published(NamedTuple):
    """Parameters, exact or in millions as printed; number of arrays."""

    parameters: int | str | None
    arrays: int


# timm's own counts, measured on timm 1.0.31. dm_nfnet_f7 is in none of its tables: nfnet_f7 and a skip gain for each of
# the 96 blocks. F3+ and F7+ are derived from DeepMind's code; nobody has printed the other "+" models.
PUBLISHED = {
    "dm_nfnet_f0": Published(71_489_284, 233),
    "dm_nfnet_f1": Published(132_634_256, 437),
    "dm_nfnet_f2": Published(193_779_228, 641),
    "dm_nfnet_f3": Published(254_924_200, 845),
    "dm_nfnet_f4": Published(316_069_172, 1049),
    "dm_nfnet_f5": Published(377_214_144, 1253),
    "dm_nfnet_f6": Published(438_359_116, 1457),
    "dm_nfnet_f7": Published(499_503_992 + 96, 1565 + 96),
    "dm_nfnet_f0_plus": Published(None, 233),
    "dm_nfnet_f1_plus": Published(None, 437),
    "dm_nfnet_f2_plus": Published(None, 641),
    "dm_nfnet_f3_plus": Published("423.42M", 845),
    "dm_nfnet_f4_plus": Published("524.95M", 1049),
    "dm_nfnet_f5_plus": Published(None, 1253),
    "dm_nfnet_f6_plus": Published(None, 1457),
    "dm_nfnet_f7_plus": Published("829.55M", 1661),
    "nfnet_f0": Published(71_489_272, 221),
    "nfnet_f1": Published(132_634_232, 413),
    "nfnet_f2": Published(193_779_192, 605),
    "nfnet_f3": Published(254_924_152, 797),
    "nfnet_f4": Published(316_069_112, 989),
    "nfnet_f5": Published(377_214_072, 1181),
    "nfnet_f6": Published(438_359_032, 1373),
    "nfnet_f7": Published(499_503_992, 1565),
    "nfnet_l0": Published(35_074_488, 221),
    "eca_nfnet_l0": Published(24_143_924, 185),
    "eca_nfnet_l1": Published(41_407_728, 341),
    "eca_nfnet_l2": Published(56_722_348, 497),
    "eca_nfnet_l3": Published(72_036_968, 653),
    "nf_regnet_b0": Published(8_764_288, 228),
    "nf_regnet_b1": Published(10_223_984, 280),
    "nf_regnet_b2": Published(14_314_608, 306),
    "nf_regnet_b3": Published(18_593_832, 345),
    "nf_regnet_b4": Published(30_210_816, 410),
    "nf_regnet_b5": Published(49_741_728, 514),
    "nf_resnet26": Published(15_995_176, 89),
    "nf_resnet50": Published(25_557_032, 161),
    "nf_resnet101": Published(44_549_160, 314),
    "nf_seresnet26": Published(17_395_976, 121),
    "nf_seresnet50": Published(28_088_024, 225),
    "nf_seresnet101": Published(49_326_872, 446),
    "nf_ecaresnet26": Published(15_995_220, 97),
    "nf_ecaresnet50": Published(25_557_118, 177),
    "nf_ecaresnet101": Published(44_549_331, 347),
    "test_nfnet": Published(383_080, 93),
}


def printed(number: int, digits: int, unit: str) -> str:
    return f"{number / {'M': 1e6, 'B': 1e9}[unit]:.{digits}f}{unit}"


def test_every_name_has_its_row():
    assert list(PUBLISHED) == list(NFNETS)


@pytest.mark.parametrize("name", NFNETS)
def test_parameters_are_the_published_ones(name: str):
    config, published = get_config(name), PUBLISHED[name]
    shapes = named_parameters(skeleton(config))
    assert all(shape.dtype == jnp.float32 for shape in shapes.values())
    parameters = sum(math.prod(shape.shape) for shape in shapes.values())
    assert count(config, 224).parameters == parameters
    assert len(shapes) == published.arrays
    if published.parameters is not None:
        exact = isinstance(published.parameters, int)
        assert (parameters if exact else printed(parameters, 2, "M")) == published.parameters


@pytest.mark.parametrize(
    ("size", "parameters", "macs"),
    [
        # Table 3 of 2102.06171; F7 derived.
        (0, "71.5M", "12.38B"),
        (1, "132.6M", "35.54B"),
        (2, "193.8M", "62.59B"),
        (3, "254.9M", "114.76B"),
        (4, "316.1M", "215.24B"),
        (5, "377.2M", "289.76B"),
        (6, "438.4M", "377.28B"),
        (7, "499.5M", "478.8B"),
    ],
)
def test_f_models_cost_what_the_paper_prints(size: int, parameters: str, macs: str):
    variant = get_variant(f"dm_nfnet_f{size}")
    costs = count(variant.config, variant.test_size)
    assert printed(costs.parameters, 1, "M") == parameters
    assert printed(costs.macs, len(macs.split(".")[1]) - 1, "B") == macs


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("dm_nfnet_f0", ("9.49B", "27.8B", "43.5B")),
        ("dm_nfnet_f1", ("17.44B", "51.2B", "79.9B")),
        ("dm_nfnet_f3", ("33.34B", "97.8B", "152.8B")),
        ("dm_nfnet_f3_plus", ("51.72B", "151.7B", "236.9B")),
        ("dm_nfnet_f7", ("65.14B", "191.1B", "298.5B")),
        ("dm_nfnet_f7_plus", ("100.74B", "295.4B", "461.4B")),
    ],
)
def test_the_models_of_the_scaling_study_cost_what_was_derived(name: str, macs: tuple[str, ...]):
    config = get_config(name)
    assert printed(count(config, 224).macs, 2, "B") == macs[0]
    assert printed(count(config, 384).macs, 1, "B") == macs[1]
    assert printed(count(config, 480).macs, 1, "B") == macs[2]


@pytest.mark.parametrize(
    ("name", "image_size", "parameters", "macs"),
    [
        # Table 5 of 2102.06171 prints 527M and 367B for F4+ at 512.
        ("dm_nfnet_f4_plus", 512, "527.03M", "367.41B"),
        ("dm_nfnet_f3_plus", 224, "425.08M", "56.92B"),
        ("dm_nfnet_f7_plus", 224, "832.89M", "111.18B"),
    ],
)
def test_without_the_floor_plus_models_cost_what_the_paper_prints(
    name: str, image_size: int, parameters: str, macs: str
):
    config = dataclasses.replace(get_config(name), bottleneck_floor=False)
    costs = count(config, image_size)
    assert (printed(costs.parameters, 2, "M"), printed(costs.macs, 2, "B")) == (parameters, macs)
    assert costs.parameters == sum(math.prod(s.shape) for s in named_parameters(skeleton(config)).values())


def test_f4_plus_as_released_is_smaller_than_the_papers():
    costs = count(get_config("dm_nfnet_f4_plus"), 512)
    assert (printed(costs.parameters, 2, "M"), printed(costs.macs, 1, "B")) == ("524.95M", "333.4B")


def traced_macs(jaxpr: Any) -> int:
    """Multiply-adds of every convolution and matrix product in a traced function."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_axis = equation.params["dimension_numbers"].rhs_spec[0]
            total += math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // kernel[out_axis]
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            sizes = equation.invars[0].aval.shape
            total += math.prod(equation.outvars[0].aval.shape) * math.prod(sizes[axis] for axis in contracted)
        elif equation.primitive.name == "cond":
            # One branch a platform, all of the same cost.
            branches = {traced_macs(branch.jaxpr) for branch in equation.params["branches"]}
            assert len(branches) == 1, branches
            total += branches.pop()
        else:
            inner = [value for value in equation.params.values() if hasattr(value, "jaxpr")]
            total += sum(traced_macs(value.jaxpr) for value in inner)
    return total


def macs_of(config: NFNetConfig, size: tuple[int, int]) -> int:
    picture = jax.ShapeDtypeStruct((config.in_channels, *size), jnp.float32)
    jaxpr, _, _ = eqx.filter_make_jaxpr(lambda model, x: model(x))(skeleton(config), picture)
    return traced_macs(jaxpr.jaxpr)


@pytest.mark.parametrize("size", [(64, 64), (75, 65)])
def test_macs_are_those_of_the_network_itself(family: str, tiny: dict[str, NFNetConfig], size: tuple[int, int]):
    assert count(tiny[family], size).macs == macs_of(tiny[family], size)


@pytest.mark.parametrize("changes", [{"output_stride": 8}, {"num_classes": 0}, {"in_channels": 5}])
def test_macs_follow_every_option(tiny: dict[str, NFNetConfig], changes: dict[str, int]):
    config = dataclasses.replace(
        tiny["nfnet"], depths=(1, 1, 1), widths=(32, 64, 64), stage_strides=(1, 2, 2), **changes
    )
    assert count(config, (70, 64)).macs == macs_of(config, (70, 64))


def test_macs_of_a_full_network_are_its_own():
    assert count(get_config("dm_nfnet_f0"), 64).macs == macs_of(get_config("dm_nfnet_f0"), (64, 64))


def test_a_picture_smaller_than_the_stride_is_refused():
    with pytest.raises(InputError, match=r"image_size \(=\(64, 31\)\) must be at least 32"):
        count(get_config("test_nfnet"), (64, 31))


def test_the_largest_config_allowed_allocates_nothing(tiny: dict[str, NFNetConfig]):
    """Terabytes, were it built."""
    giant = dataclasses.replace(tiny["nfnet"], depths=(10,), widths=(65_536,), group_size=None)
    assert count(giant, 64).parameters * 4 > 10**12
    assert sum(math.prod(s.shape) for s in named_parameters(skeleton(giant)).values()) == count(giant, 64).parameters
