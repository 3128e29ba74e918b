"""The family's table of names."""

import pytest

from nfnet_eqx import InputError, get_config, list_models
from nfnet_eqx.models._families import VARIANTS, get_variant

F_SIZES = [(192, 256), (224, 320), (256, 352), (320, 416), (384, 512), (416, 544), (448, 576), (480, 608)]
OTHER_SIZES = {
    "nfnet_l0": (224, 288),
    "eca_nfnet_l0": (224, 288),
    "eca_nfnet_l1": (256, 320),
    "eca_nfnet_l2": (320, 384),
    "eca_nfnet_l3": (352, 448),
    "nf_regnet_b0": (192, 256),
    "nf_regnet_b1": (256, 288),
    "nf_regnet_b2": (240, 272),
    "nf_regnet_b3": (288, 320),
    "nf_regnet_b4": (320, 384),
    "nf_regnet_b5": (384, 456),
    "nf_resnet50": (256, 288),
    "test_nfnet": (160, 160),
    "vit_so400m_patch14_siglip_378": (378, 378),
    "vit_micro_patch4_32": (32, 32),
}


def test_there_are_36_names_of_timm_and_9_of_deepmind_and_11_vits():
    names = [name for name in list_models() if not name.startswith("vit_")]
    assert len(names) == len(set(names)) == 45
    assert list_models() == [*names, *list_models("vit_*")] and len(list_models("vit_*")) == 11
    only_ours = [name for name in names if name == "dm_nfnet_f7" or name.endswith("_plus")]
    assert only_ours == ["dm_nfnet_f7", *(f"dm_nfnet_f{size}_plus" for size in range(8))]


def test_patterns_are_those_of_a_shell():
    assert list_models("dm_nfnet_f?") == [f"dm_nfnet_f{size}" for size in range(8)]
    assert list_models("*_plus") == [f"dm_nfnet_f{size}_plus" for size in range(8)]
    assert list_models("NFNET_F0") == list_models("resnet") == []


@pytest.mark.parametrize("size", range(8))
@pytest.mark.parametrize("name", ["dm_nfnet_f{}", "dm_nfnet_f{}_plus", "nfnet_f{}"])
def test_f_models_have_the_papers_depths_and_sizes(name: str, size: int):
    variant = get_variant(name.format(size))
    assert variant.config.depths == (1 + size, 2 + 2 * size, 6 + 6 * size, 3 + 3 * size)
    assert (variant.train_size, variant.test_size) == F_SIZES[size]


@pytest.mark.parametrize("name", [name for name in VARIANTS if "nfnet_f" not in name])
def test_the_other_models_have_timms_sizes(name: str):
    variant = get_variant(name)
    assert (variant.train_size, variant.test_size) == OTHER_SIZES.get(name, (224, 224))


def test_plus_models_have_deepminds_stem():
    assert get_config("dm_nfnet_f3_plus").stem_widths == (16, 32, 64, 192)
    assert get_config("dm_nfnet_f3").stem_widths == (16, 32, 64, 128)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dm_nfnet_f9", "dm_nfnet_f7"),
        ("nfnet_f3+", "nfnet_f3"),
        ("Test_NFNet", "test_nfnet"),
        ("vit_large", "vit_large_patch16_224"),
        ("swin_large", "nfnet_eqx.list_models()"),
        ("", "nfnet_eqx.list_models()"),
    ],
)
def test_an_unknown_name_is_answered_with_its_neighbours(name: str, expected: str):
    with pytest.raises(InputError, match="unknown architecture") as caught:
        get_config(name)
    assert repr(name) in str(caught.value) and expected in str(caught.value)
