"""What is published: the catalog, checkpoints by one line from the package or the Hub, and the way there.

>>> from nfnet_eqx import zoo
>>> sorted(zoo.bundled())
['nfnet_cifar10']
>>> zoo.find("timm/dm_nfnet_f0.dm_in1k").accuracy(256).top1
83.468
>>> zoo.from_pretrained("nfnet_cifar10").architecture
'nfnet_cifar10'

What `nfnet-eqx pull` and `push` do, and a load that is held to the bytes that were pulled:

    folder, origin, ignored = zoo.pull("timm/dm_nfnet_f0.dm_in1k", lock="nfnet.lock")
    ckpt = zoo.from_pretrained("timm/dm_nfnet_f0.dm_in1k", lock="nfnet.lock")
    address = zoo.push_to_hub(ckpt, "me/my-nfnet", private=True)

What cannot be used, found or reached is an `nfnet_eqx.InputError`, whose message names it and the remedy.
"""

from nfnet_eqx.zoo._catalog import Published, PublishedAccuracy, catalog, find
from nfnet_eqx.zoo._client import redacted
from nfnet_eqx.zoo._hub import Pulled, bundled, from_pretrained, published_files, pull
from nfnet_eqx.zoo._push import push_to_hub

__all__ = [
    "Published",
    "PublishedAccuracy",
    "Pulled",
    "bundled",
    "catalog",
    "find",
    "from_pretrained",
    "published_files",
    "pull",
    "push_to_hub",
    "redacted",
]
