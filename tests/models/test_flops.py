"""The rule of FLOPs: 2 a multiply-add, 6 in training, for every architecture; and what the papers state with it."""

import dataclasses

import pytest

from nfnet_eqx import InputError, count, flops, get_config, list_models
from nfnet_eqx.models import DEVICES, get_variant, measured_utilisation


@pytest.mark.parametrize("name", list_models())
def test_a_multiply_add_is_two_operations_and_six_in_training(name: str):
    config, _, size = get_variant(name)
    macs = count(config, size).macs
    assert (flops(config, size, training=False), flops(config, size)) == (2 * macs, 6 * macs)


@pytest.mark.parametrize(
    ("name", "size", "gflops"),
    [
        # 2310.16764, fine-tuned F7+ at 384 and evaluated at 480, on the ViTs' scale of two FLOPs a multiply-add.
        ("dm_nfnet_f7_plus", 384, 590.8),
        ("dm_nfnet_f7_plus", 480, 923),
        # 2102.06171, table 3: there FLOPs are multiply-adds.
        ("dm_nfnet_f0", 256, 2 * 12.38),
        ("dm_nfnet_f6", 576, 2 * 377.28),
    ],
)
def test_the_forward_pass_costs_what_was_published(name: str, size: int, gflops: float):
    assert flops(get_config(name), size, training=False) / 1e9 == pytest.approx(gflops, rel=0.005)


@pytest.mark.parametrize(
    ("name", "images", "core_hours", "utilisation"),
    [
        # Of the papers' runs: images seen, TPU-v4 core hours (2310.16764), and the share of the peak that they imply.
        ("dm_nfnet_f7_plus", 32e9, 110e3, 0.36),
        ("vit_giant_patch14_224", 16e9, 120e3, 0.43),
        ("vit_gigantic_patch14_224", 20.5e9, 280e3, 0.43),
        ("vit_so400m_patch14_siglip_224", 40e9, 130e3, 0.41),
    ],
)
def test_the_papers_runs_imply_the_utilisation_that_was_derived(
    name: str, images: float, core_hours: float, utilisation: float
):
    reached = measured_utilisation(images * flops(get_config(name), 224), DEVICES["tpu-v4-core"], core_hours * 3600)
    assert reached == pytest.approx(utilisation, abs=0.006)


def test_height_and_width_may_differ_and_more_classes_cost_more():
    config = get_config("test_nfnet")
    assert flops(config, (64, 128)) == flops(config, (128, 64)) > flops(config, 64)
    more = dataclasses.replace(config, num_classes=2000)
    assert flops(more, 64) - flops(config, 64) == 6 * 1000 * config.feature_width


def test_an_image_that_the_network_cannot_take_is_refused():
    with pytest.raises(InputError, match=r"image_size \(=16\) must be at least 32"):
        flops(get_config("dm_nfnet_f0"), 16)
