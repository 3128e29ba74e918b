"""`from_pretrained`: a checkpoint by one line, from the package, from a folder, or from the Hub; and `pull`."""

import difflib
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jax.typing import DTypeLike

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import (
    CONFIG_NAME,
    Checkpoint,
    Origin,
    Placement,
    adapt,
    checkpoint_files,
    load_checkpoint,
    load_run,
    run_of,
    sha256,
)
from nfnet_eqx.convert import is_foreign, load_deepmind
from nfnet_eqx.models import VARIANTS
from nfnet_eqx.zoo import _fetch
from nfnet_eqx.zoo._catalog import catalog
from nfnet_eqx.zoo._client import check_revision
from nfnet_eqx.zoo._lock import check_lock, check_locked, read_lock, write_lock

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def bundled() -> dict[str, Path]:
    """The folders of the checkpoints that ship with the package, by name."""
    weights = Path(str(resources.files("nfnet_eqx.zoo"))) / "weights"
    return {folder.name: folder for folder in sorted(weights.glob("*")) if (folder / CONFIG_NAME).is_file()}


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    dtype: DTypeLike | None = None,
    device: Placement | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
    lock: str | os.PathLike[str] | None = None,
) -> Checkpoint:
    """Open a checkpoint.

    A repository that is in the cache of huggingface_hub is opened as it was last seen, without a word to the network;
    `pull` asks for a newer one. Whatever was fetched is compared with the hash that the Hub announced, at each load.
    (What another program brought into the cache is compared with the hash that stands in the cache's own names; in a
    cache without links there is none.)

    Args:
        source: in this order: the name of a bundled checkpoint (`bundled()` lists them); a folder, ours or timm's, that
            of a training run (what it exported) or of one of its states (`runs/flowers/checkpoints/700`), a
            `.safetensors` file with its `config.json` beside it, or one of DeepMind's files (`F0_haiku.npz`); the id of
            a repository on the Hub: `"org/name"`, `"org/name@revision"`, `"hf-hub:org/name"`, or timm's short form
            `"dm_nfnet_f0.dm_in1k"` (`list_models(pretrained=True)` names them).
        num_classes: another number of classes: the classifier starts afresh (from a fixed seed), and the log says so.
        in_channels: another number of input channels: the first convolution is adapted by timm's rule.
        dtype: what to keep the parameters in; `None` is float32.
        device: a `jax.Device` or a `jax.sharding.Sharding` to put the parameters on; each goes there as it is read, so
            that the host holds no second copy.
        revision: a branch, tag or commit of the repository; by default `main`.
        cache_dir: where downloads are kept; by default where huggingface_hub keeps them (`HF_HOME`).
        token: for a private or gated repository; by default the one of `hf auth login`.
        local_files_only: use what the cache holds and do not touch the network (so does `HF_HUB_OFFLINE=1`).
        endpoint: another Hub than huggingface.co.
        lock: a lock file, as `nfnet-eqx pull --lock` writes it, that the checkpoint is held to: its commit is fetched,
            and its bytes must be the same.

    Raises:
        InputError: there is no such checkpoint, it cannot be reached, or it is broken; the message says which.
    """
    name = _name(source)
    changes: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    local = bundled().get(name) or (Path(name) if os.path.exists(name) else None)
    if local is not None:
        if lock is not None:
            raise InputError(f"{name}: is on this machine, and lock={str(lock)!r} is for repositories of the Hub")
        if is_foreign(local):
            return adapt(
                load_deepmind(local, dtype=dtype, device=device, known=published_files()), num_classes, in_channels
            )
        if run_of(local) is not None:
            return load_run(local, dtype=dtype, device=device, **changes)
        return load_checkpoint(local, name=name, dtype=dtype, device=device, **changes)

    repo_id, revision = _parse_hub_id(name, revision)
    where = _where(repo_id, revision)
    locked = None if lock is None else read_lock(lock, where)
    if locked is not None:
        revision = locked.commit
    folder = _fetch.cached(repo_id, revision, cache_dir)
    if folder is None:
        if local_files_only:
            raise InputError(f"{where}: not in the cache, and local_files_only=True; leave that out to download it")
        folder, _ = _fetch.download(repo_id, revision, cache_dir=cache_dir, token=token, endpoint=endpoint)
    try:
        ckpt = load_checkpoint(folder, name=repo_id, commit=folder.name, dtype=dtype, device=device, **changes)
    except InputError:
        # What broke on the way, or in the cache, is another fault than what was broken from the start.
        _fetch.check_hashes(where, checkpoint_files(folder))
        raise
    _fetch.check_hashes(where, checkpoint_files(folder), ckpt.source.sha256)
    if lock is not None and locked is not None:
        check_locked(lock, where, locked, ckpt.source)
    return ckpt


def published_files() -> dict[str, dict[str, str]]:
    """What is known of the files that DeepMind published, under timm's keys, by their md5."""
    known = {}
    for published in catalog():
        if published.md5:
            about = {"tag": published.name.partition(".")[2], "license": published.license}
            known[published.md5] = {key: value for key, value in about.items() if value is not None}
    return known


class Pulled(NamedTuple):
    """A checkpoint of the Hub in the cache.

    Attributes:
        folder: holds its files.
        origin: the repository, its commit, and the sha256 of the files.
        ignored: files of the repository that were left alone, because they hold code, or may.
    """

    folder: Path
    origin: Origin
    ignored: list[str]


def pull(
    source: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    lock: str | os.PathLike[str] | None = None,
) -> Pulled:
    """Fetch what a repository of the Hub holds now into the cache, where `from_pretrained` finds it.

    Args:
        source: the id of a repository, in any of its spellings.
        revision: a branch, tag or commit; by default `main`.
        cache_dir: where downloads are kept; by default where huggingface_hub keeps them (`HF_HOME`).
        token: for a private or gated repository; by default the one of `hf auth login`.
        endpoint: another Hub than huggingface.co.
        lock: a lock file to note the commit and the sha256 of each file in, for `from_pretrained(..., lock=)`.

    Raises:
        InputError: there is no such repository, it cannot be reached, or `lock` is no lock file.
    """
    name = _name(source)
    if name in bundled() or os.path.exists(name):
        raise InputError(f"{name}: is on this machine; there is nothing to pull")
    repo_id, revision = _parse_hub_id(name, revision)
    where = _where(repo_id, revision)
    if lock is not None:
        check_lock(lock)
    folder, ignored = _fetch.download(repo_id, revision, cache_dir=cache_dir, token=token, endpoint=endpoint)
    origin = Origin(repo_id, folder.name, sha256(checkpoint_files(folder)))
    _fetch.check_hashes(where, checkpoint_files(folder), origin.sha256)
    if lock is not None:
        write_lock(lock, where, origin)
    return Pulled(folder, origin, ignored)


def _name(source: object) -> str:
    """What names a checkpoint, as text."""
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"source: a name, a path or a Hub id is needed, this is of type {type(source).__name__}")
    return os.fsdecode(source)


def _where(repo_id: str, revision: str | None) -> str:
    """A repository as messages and lock files name it."""
    return repo_id if revision in (None, "main") else f"{repo_id}@{revision}"


def _parse_hub_id(name: str, revision: str | None) -> tuple[str, str | None]:
    """Repository and revision of a Hub id, in any of its spellings."""
    repo_id, _, at_revision = name.removeprefix("hf-hub:").removeprefix("hf_hub:").partition("@")
    if at_revision and revision not in (None, at_revision):
        raise InputError(f"{name!r} names the revision {at_revision!r}, and revision={revision!r} another; give one")
    revision = at_revision or revision or None
    if revision is not None:
        check_revision(revision)
    published = [checkpoint for checkpoint in catalog() if checkpoint.architecture == repo_id.partition(".")[0]]
    for checkpoint in published:
        if checkpoint.name == repo_id and checkpoint.url:
            raise InputError(
                f"{name!r} is not on the Hub: fetch {checkpoint.url} and give the path of the file, or take timm's "
                f"copy, {', '.join(repr(other.name) for other in published if other.hub_id)}"
            )
    architecture, dot, _ = repo_id.partition(".")
    if dot and architecture in VARIANTS:
        repo_id = f"timm/{repo_id}"
    if _REPO_ID.fullmatch(repo_id) and not name.startswith(("./", "../")):
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise InputError(f"{name!r}: {' '.join(str(error).split())}") from None
        return repo_id, revision
    if name in VARIANTS:
        known = [repr(checkpoint.name) for checkpoint in published if checkpoint.hub_id]
        remedy = f"give {' or '.join(known)}" if known else "none of them are published"
        raise InputError(
            f"{name!r} is an architecture, and which of its weights are meant is not clear: {remedy}, or use "
            "create_model for random ones"
        )
    near = difflib.get_close_matches(name, [*bundled(), *VARIANTS], n=2, cutoff=0.8)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise InputError(
        f"{name!r} is no bundled checkpoint ({', '.join(bundled()) or 'none'}), no existing folder, and no Hub id such "
        f"as 'timm/dm_nfnet_f0.dm_in1k'{hint}"
    )
