"""A measured accuracy beside the published one."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from nfnet_eqx import Checkpoint, InputError, from_pretrained
from nfnet_eqx.checkpoints._checkpoint import Origin
from nfnet_eqx.images.labels import imagenet1k
from nfnet_eqx.models._families import skeleton
from nfnet_eqx.train import Comparison
from nfnet_eqx.train._evaluate import Evaluation
from nfnet_eqx.train._published import compare, find_published
from nfnet_eqx.zoo._catalog import find
from tests.zoo.repos import published

CATALOGED = "test_nfnet.r160_in1k"


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The checkpoint as published, but for random weights."""
    folder = tmp_path_factory.mktemp("published")
    for name, content in published(folder).items():
        if name.endswith((".json", ".safetensors")):
            (folder / name).write_bytes(content)
    return from_pretrained(folder)


def compared(ckpt: Checkpoint, right: int, images: int = 50_000) -> Comparison:
    """What is said of a network that is right so often."""
    ranks = (np.arange(images) >= right).astype(np.int32)
    labels = (np.arange(images) % 1000).astype(np.int32)
    found = Evaluation(
        labels=labels,
        predictions=np.where(ranks == 0, labels, (labels + 1) % 1000).astype(np.int32),
        ranks=ranks,
        losses=np.ones(images, np.float32),
        num_classes=1000,
    )
    known = find_published(ckpt)
    return compare(known, known.accuracy(), ckpt, 1000, found)


def test_on_all_of_imagenet_the_figure_lies_inside_the_interval_or_outside(ckpt: Checkpoint):
    same, worse = compared(ckpt, 23_820), compared(ckpt, 23_000)
    assert same.not_comparable is worse.not_comparable is None
    assert same.difference == pytest.approx(47.64 - 47.634) and same.in_interval is True
    assert worse.difference == pytest.approx(46 - 47.634) and worse.in_interval is False
    one_is_broken = compared(ckpt, 23_820, 49_999).not_comparable
    assert one_is_broken is not None and "these are 49,999 pictures of 1,000 classes" in one_is_broken


def test_other_numerics_than_those_of_the_figure_are_noted(ckpt: Checkpoint):
    config = dataclasses.replace(ckpt.config, numerics="deepmind")
    found = compared(dataclasses.replace(ckpt, model=skeleton(config)), 23_820)
    assert (found.published_numerics, found.numerics) == ("timm", "deepmind")


def test_a_checkpoint_is_known_by_its_hub_id_or_by_its_tag(ckpt: Checkpoint):
    assert find_published(ckpt) is find(CATALOGED)
    from_hub = dataclasses.replace(ckpt, source=Origin(f"timm/{CATALOGED}", "0" * 40), about={})
    assert find_published(from_hub) is find(CATALOGED)
    assert from_hub.labels == imagenet1k()


@pytest.mark.parametrize(
    "change",
    [
        {"about": {}},
        {"about": {"tag": "mine"}},
        {"architecture": "nfnet_l0"},
        {"source": Origin("timm/nfnet_l0.ra2_in1k", "0" * 40), "about": {}},
        {"source": Origin(f"timm/{CATALOGED}"), "about": {}},
    ],
    ids=str,
)
def test_what_was_not_published_has_nothing_to_compare_with(change: dict[str, Any], ckpt: Checkpoint):
    with pytest.raises(InputError, match="is none of the published checkpoints .*leave that out"):
        find_published(dataclasses.replace(ckpt, **change))
