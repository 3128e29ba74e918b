"""What is published: the catalog, checkpoints by one line from the package or the Hub, and the way there."""

from nfnet_eqx.zoo._catalog import Published, PublishedAccuracy, catalog, find
from nfnet_eqx.zoo._hub import Pulled, bundled, from_pretrained, pull
from nfnet_eqx.zoo._push import push_to_hub

__all__ = [
    "Published",
    "PublishedAccuracy",
    "Pulled",
    "bundled",
    "catalog",
    "find",
    "from_pretrained",
    "pull",
    "push_to_hub",
]
