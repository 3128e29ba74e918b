"""`nfnet-eqx pull`: a checkpoint from the Hub into the cache."""

import json as json_format
from pathlib import Path
from typing import Annotated

import tyro

from nfnet_eqx.cli._text import printable
from nfnet_eqx.zoo import pull as pull_from_hub


def pull(
    id: Annotated[str, tyro.conf.Positional],
    *,
    revision: str | None = None,
    lock: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    json: bool = False,
) -> None:
    """Fetch a checkpoint from the Hub into the cache, where every command and from_pretrained find it.

    Commands open what the cache holds, without asking for a newer version: this one asks. Only config.json and
    safetensors files are fetched, and each is compared with the hash that the Hub announced.

    A private repository takes the token of `hf auth login`, or of the variable HF_TOKEN.

    Examples:
        nfnet-eqx pull dm_nfnet_f0.dm_in1k
        nfnet-eqx pull timm/dm_nfnet_f0.dm_in1k --lock nfnet.lock

    Args:
        id: of a repository: org/name, org/name@revision, or timm's short form.
        revision: a branch, tag or commit; by default main.
        lock: note the commit and the sha256 of each file in this file, to which from_pretrained(..., lock=FILE) holds a
            later load.
        cache_dir: where to keep it; by default in huggingface_hub's cache (HF_HOME).
        endpoint: another Hub than huggingface.co.
        json: print JSON.

    Raises:
        InputError: there is no such repository, or it cannot be fetched.
    """
    folder, origin, ignored = pull_from_hub(id, revision=revision, cache_dir=cache_dir, endpoint=endpoint, lock=lock)
    sizes = {name: (folder / name).stat().st_size for name in origin.sha256}
    if json:
        files = {name: {"bytes": sizes[name], "sha256": digest} for name, digest in origin.sha256.items()}
        found = {"id": origin.name, "commit": origin.commit, "folder": str(folder), "files": files}
        found["ignored"] = ignored
        print(json_format.dumps(found, indent=2))
        return
    print(f"{origin}\n{folder}")
    for name, digest in origin.sha256.items():
        print(f"{digest}  {sizes[name]:13,}  {printable(name)}")
    if ignored:
        print(f"never read: {printable(', '.join(ignored))}")
