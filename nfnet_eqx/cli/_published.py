"""A published accuracy beside a measured one."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Checkpoint
from nfnet_eqx.train import Evaluation
from nfnet_eqx.zoo import Protocol, Published, bundled, find


class Claim(NamedTuple):
    """A published checkpoint, and one of its accuracies."""

    published: Published
    protocol: Protocol


def find_claim(ckpt: Checkpoint, size: int | None) -> Claim:
    """What was published about a checkpoint: known by its id on the Hub, or by its architecture and tag.

    Args:
        ckpt: the checkpoint.
        size: at which picture size; `None` is the test size.

    Raises:
        InputError: it is no published checkpoint, or nothing was published at this size.
    """
    known = ckpt.source.commit is not None or ckpt.source.name in bundled()
    published = find(ckpt.source.name) if known else None
    published = published or find(f"{ckpt.architecture}.{ckpt.about.get('tag')}")
    if published is None or published.architecture != ckpt.architecture or ckpt.config.num_classes != published.classes:
        raise InputError(
            f"--published: {ckpt.source} is none of the published checkpoints (nfnet-eqx list --pretrained names them) "
            "by its Hub id, nor by its architecture and tag; leave that out"
        )
    return Claim(published, published.protocol(size))


def compare(claim: Claim, ckpt: Checkpoint, classes: int, found: Evaluation) -> dict[str, Any]:
    """The claim, and what the measurement says to it, as JSON values.

    Args:
        claim: what was published.
        ckpt: what was measured.
        classes: how many classes the pictures have.
        found: what it answered.
    """
    why_not = None
    published = claim.published
    if (classes, len(found.labels)) != (published.classes, published.pictures):
        why_not = (
            f"these are {len(found.labels):,} pictures of {classes:,} classes; the figure is for {published.data}'s "
            f"{published.pictures:,} of {published.classes:,}"
        )
    low, high = found.interval("top1")
    return {
        "name": published.name,
        **dataclasses.asdict(claim.protocol),
        "numerics": {"published": published.numerics, "measured": ckpt.config.numerics},
        "not_comparable": why_not,
        "difference": None if why_not else found.top1 - claim.protocol.top1,
        "in_interval": None if why_not else low <= claim.protocol.top1 <= high,
    }


def lines(compared: Mapping[str, Any]) -> list[str]:
    """What `compare` found, for people."""
    said = [f"published top-1 of {compared['name']} at {compared['size']}: {compared['top1']} %, {compared['source']}"]
    if compared["not_comparable"]:
        said.append(f"cannot be compared: {compared['not_comparable']}")
    else:
        place = "inside" if compared["in_interval"] else "outside"
        said.append(f"measured minus published: {compared['difference']:+.3f} %, {place} the interval")
    theirs, ours = compared["numerics"]["published"], compared["numerics"]["measured"]
    if theirs != ours:
        said.append(f"published for the numerics {theirs!r}, measured with {ours!r}")
    return said
