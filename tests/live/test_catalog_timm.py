"""The catalog of published checkpoints against timm's own, where it is installed."""

import pytest

from nfnet_eqx.zoo._catalog import Published, catalog
from tests.live.pair import timm

TIMM = [published for published in catalog() if published.hub_id]


def test_it_has_all_nfnets_that_timm_publishes() -> None:
    theirs = timm.list_models(module="nfnet", pretrained=True)
    ours = [published.name for published in TIMM]
    assert sorted(name for name in ours if not name.startswith("vit_")) == sorted(theirs)


def test_its_vits_are_four_of_timms() -> None:
    vits = [published.name for published in TIMM if published.architecture.startswith("vit_")]
    assert len(vits) == 4 and set(vits) <= set(timm.list_models("vit_*", pretrained=True))


@pytest.mark.parametrize("published", TIMM, ids=lambda published: published.name)
def test_a_checkpoint_is_described_as_timm_describes_it(published: Published) -> None:
    cfg = timm.models.get_pretrained_cfg(published.name)
    test_input_size = cfg.test_input_size or cfg.input_size
    assert (cfg.architecture, cfg.tag) == tuple(published.name.split("."))
    assert (cfg.hf_hub_id, cfg.license, cfg.num_classes) == (published.hub_id, published.license, 1000)
    assert cfg.input_size == (3, published.train_size, published.train_size)
    assert test_input_size == (3, published.test_size, published.test_size)
    crops = {published.train_size: cfg.crop_pct, published.test_size: cfg.test_crop_pct or cfg.crop_pct}
    for accuracy in published.published:
        assert accuracy.crop_pct == crops[accuracy.size]
        assert (accuracy.crop_mode, accuracy.interpolation) == (cfg.crop_mode, cfg.interpolation)
        assert (accuracy.mean, accuracy.std) == (cfg.mean, cfg.std)
