"""A measured accuracy beside the published one."""

import dataclasses

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Checkpoint
from nfnet_eqx.models import Numerics
from nfnet_eqx.train._evaluate import Evaluation
from nfnet_eqx.zoo import Published, PublishedAccuracy, bundled, find


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published top-1, and what a measurement says to it.

    Attributes:
        name: of the published checkpoint.
        accuracy: what was published, and how that was measured.
        published_numerics: the numerics that the published checkpoint is meant for.
        numerics: the numerics that were measured.
        not_comparable: why the two cannot be compared; `None`: they can.
        difference: measured minus published, in percent points; `None` where they cannot be compared.
        in_interval: whether the published top-1 lies in the 95 % interval of the measured one; `None` likewise.
    """

    name: str
    accuracy: PublishedAccuracy
    published_numerics: Numerics
    numerics: Numerics
    not_comparable: str | None
    difference: float | None
    in_interval: bool | None


def find_published(ckpt: Checkpoint) -> Published:
    """What was published as this checkpoint: known by its id on the Hub, or by its architecture and tag.

    Raises:
        InputError: nothing was.
    """
    known = ckpt.source.commit is not None or ckpt.source.name in bundled()
    published = find(ckpt.source.name) if known else None
    published = published or find(f"{ckpt.architecture}.{ckpt.about.get('tag')}")
    if published is None or published.architecture != ckpt.architecture or ckpt.config.num_classes != published.classes:
        raise InputError(
            f"published: {ckpt.source} is none of the published checkpoints (nfnet-eqx list --pretrained names them) "
            "by its Hub id, nor by its architecture and tag; leave that out"
        )
    return published


def compare(
    published: Published, accuracy: PublishedAccuracy, ckpt: Checkpoint, num_classes: int, found: Evaluation
) -> Comparison:
    """Compare a measured top-1 with the published one.

    Args:
        published: what was published.
        accuracy: the one of its accuracies that was measured anew.
        ckpt: what was evaluated.
        num_classes: how many classes the data has.
        found: what came out.
    """
    not_comparable = None
    if (num_classes, len(found.labels)) != (published.classes, published.pictures):
        not_comparable = (
            f"these are {len(found.labels):,} pictures of {num_classes:,} classes; the figure is for "
            f"{published.data}'s {published.pictures:,} of {published.classes:,}"
        )
    low, high = found.interval("top1")
    return Comparison(
        name=published.name,
        accuracy=accuracy,
        published_numerics=published.numerics,
        numerics=ckpt.config.numerics,
        not_comparable=not_comparable,
        difference=None if not_comparable else found.top1 - accuracy.top1,
        in_interval=None if not_comparable else low <= accuracy.top1 <= high,
    )
