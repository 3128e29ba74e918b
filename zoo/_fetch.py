"""Checkpoints of the Hub on this machine: its client's cache first, then the network.

Only `config.json` and safetensors files are fetched: never a pickle, never code. What arrived is compared with the hash
that the Hub announced, which the client leaves to its callers.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import CONFIG_NAME, INDEX_NAME, WEIGHTS_NAME, read_index
from nfnet_eqx.zoo._client import NO_HUB, ask, explained, make_api, patiently

# Names of these endings are ignored, with a note: they hold code, or may.
_UNSAFE = (".bin", ".ckpt", ".h5", ".msgpack", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".py")

_log = logging.getLogger(__name__)


def cached(repo_id: str, revision: str | None, cache_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder of the client's cache that holds a revision as it was last seen, if all of its files are there."""
    from huggingface_hub import try_to_load_from_cache

    def find(filename: str) -> Path | None:
        found = try_to_load_from_cache(
            repo_id, filename, cache_dir=None if cache_dir is None else str(cache_dir), revision=revision
        )
        return Path(found) if isinstance(found, str) else None

    config = find(CONFIG_NAME)
    if config is None:
        return None
    if find(WEIGHTS_NAME):
        return config.parent
    try:
        return config.parent if (index := find(INDEX_NAME)) and all(map(find, read_index(index))) else None
    except InputError:  # a broken index; the download looks closer
        return None


def download(
    repo_id: str,
    revision: str | None,
    *,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
    endpoint: str | None,
) -> tuple[Path, list[str]]:
    """Fetch what a revision is now into the client's cache; what is there already is not fetched again.

    Returns:
        The folder of the cache that holds the commit, named after it; and the names of files that were left alone
        because they hold code, or may.

    Raises:
        InputError: the repository, revision or a file does not exist, may not be read, or cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    where = repo_id if revision is None else f"{repo_id}@{revision}"
    api = make_api(token, endpoint)

    def fetch(filename: str, revision: str | None) -> Path:
        path = hf_hub_download(
            repo_id,
            filename,
            revision=revision,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            token=token,
            endpoint=endpoint,
            library_name="nfnet-eqx",
        )
        return Path(path)

    try:
        # The first question is one that the client does not repeat: a Hub out of reach is told at once.
        info = ask(lambda: api.model_info(repo_id, revision=revision, files_metadata=True, timeout=10))
        commit, hashes = _listing(info)
        ignored = _look_through(where, list(hashes))
        weights = INDEX_NAME if INDEX_NAME in hashes and WEIGHTS_NAME not in hashes else WEIGHTS_NAME
        _check_listed(where, [CONFIG_NAME, weights], hashes)
        # By name, so that the cache remembers what the name stood for; from then on by commit.
        folder = patiently(lambda: fetch(CONFIG_NAME, revision)).parent
        if folder.name != commit:
            raise InputError(f"{where}: changed while it was fetched; try again")
        wanted = [weights]
        if weights == INDEX_NAME:
            index = patiently(lambda: fetch(INDEX_NAME, commit))
            check_hashes(where, [index], announced=hashes)
            wanted = list(read_index(index))
            _check_listed(where, wanted, hashes)
        files = [patiently(lambda filename=filename: fetch(filename, commit)) for filename in wanted]
    except InputError:
        raise
    except Exception as error:
        raise explained(error, where) from None
    # Where the cache has links, these keep the hashes, and whoever opens the files compares them.
    check_hashes(where, [file for file in (folder / CONFIG_NAME, *files) if not file.is_symlink()], announced=hashes)
    return folder, ignored


def _listing(info: Any) -> tuple[str, dict[str, str]]:
    """The commit, and its files: sha256 of large ones, git's hash of others; empty where a mirror does not tell."""
    hashes = {file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or "" for file in info.siblings or ()}
    if not isinstance(info.sha, str) or not all(isinstance(name, str) for name in hashes):
        raise OSError(NO_HUB)
    return info.sha, hashes


def _look_through(where: str, names: list[str]) -> list[str]:
    """Refuse a repository with file names that lead elsewhere; the names of those of its files that are never read."""
    stray = [name for name in names if "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts]
    if stray:
        raise InputError(f"{where}: the repository lists {stray[0]!r}, a name that leads out of it; refused")
    unsafe = [name for name in names if name.endswith(_UNSAFE)]
    if unsafe:
        _log.info("%s: ignored %s (only json and safetensors are read)", where, ", ".join(map(repr, unsafe)))
    return unsafe


def _check_listed(where: str, wanted: list[str], names: Mapping[str, str]) -> None:
    if missing := [name for name in wanted if name not in names]:
        raise InputError(f"{where}: the repository has no {missing[0]}; other formats are never fetched")


def check_hashes(
    where: str,
    files: list[Path],
    sha256: Mapping[str, str] | None = None,
    announced: Mapping[str, str] | None = None,
) -> None:
    """Compare files of the client's cache with the hashes that the Hub announced for them.

    A file that is another one is removed, so that the next call fetches it anew.

    Args:
        where: the repository, for the message.
        files: in a folder of the cache.
        sha256: the digests of the files by name, where they are known already.
        announced: what the Hub says, by name: sha256 of large files, git's hash of others. `None` takes what the cache
            has kept of it: it names each file after its hash and links to it, where the file system has links.

    Raises:
        InputError: naming the file.
    """
    for file in files:
        linked = file.is_symlink()
        blob = file.parent / os.readlink(file) if linked else file
        kept = blob.name if linked else ""
        expected = kept if announced is None else announced[file.name]
        if len(expected) == 64:
            found = sha256[file.name] if sha256 else _digest(file, "sha256")
        elif len(expected) == 40:
            found = _digest(file, "sha1", f"blob {file.stat().st_size}\0".encode())
        else:
            continue
        if found != expected:
            remedy = "it was removed from the cache: try again"
            try:
                for path in (file.resolve(), blob, file, file.parents[2] / "blobs" / expected):
                    path.unlink(missing_ok=True)
            except OSError:
                remedy = f"remove it by hand ({blob}), and try again"
            raise InputError(
                f"{where}: {file.name} is not the file that the Hub announced (hash {found}, not {expected}); {remedy}"
            )


def _digest(path: Path, algorithm: str, prefix: bytes = b"") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, prefix)).hexdigest()


def forget(repo_id: str, revision: str | None) -> None:
    """Make the default cache forget what a branch stood for, as far as it can be written; the files stay."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    with contextlib.suppress(OSError):
        (folder / "refs" / (revision or constants.DEFAULT_REVISION)).unlink(missing_ok=True)
