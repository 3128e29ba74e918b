"""Checkpoints of the Hub on this machine: its client's cache first, then the network.

Only `config.json` and safetensors files are fetched: never a pickle, never code. What arrived is compared with the hash
that the Hub announced, which the client leaves to its callers.
"""

import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from nfnet_eqx._errors import InputError
from nfnet_eqx.convert._tensors import read_index
from nfnet_eqx.zoo.checkpoint import CONFIG_NAME, INDEX_NAME, WEIGHTS_NAME

# Seconds between two tries where the Hub is at fault; the client itself repeats some of its requests and not others.
_PAUSES = (1, 2, 4)

# Names of these endings are ignored, with a note: they hold code, or may.
_UNSAFE = (".bin", ".ckpt", ".h5", ".msgpack", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".py")

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


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
    if find(WEIGHTS_NAME) or ((index := find(INDEX_NAME)) and all(map(find, read_index(index)))):
        return config.parent
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
    from huggingface_hub import HfApi, hf_hub_download

    def fetch(filename: str, revision: str | None) -> Path:
        return Path(
            hf_hub_download(
                repo_id,
                filename,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                token=token,
                endpoint=endpoint,
                library_name="nfnet-eqx",
            )
        )

    where = repo_id if revision is None else f"{repo_id}@{revision}"
    try:
        # The first question is one that the client does not repeat: a Hub out of reach is told at once.
        api = HfApi(endpoint=endpoint, token=token, library_name="nfnet-eqx")
        info = patiently(lambda: api.model_info(repo_id, revision=revision, timeout=10))
        names = [sibling.rfilename for sibling in info.siblings or ()]
        ignored = _look_through(where, names)
        # By name, so that the cache remembers what the name stood for; from then on by commit.
        folder = patiently(lambda: fetch(CONFIG_NAME, revision)).parent
        if folder.name != info.sha:
            raise InputError(f"{where}: changed while it was fetched; try again")
        wanted = [WEIGHTS_NAME]
        if WEIGHTS_NAME not in names and INDEX_NAME in names:
            wanted = [INDEX_NAME, *read_index(patiently(lambda: fetch(INDEX_NAME, info.sha)))]
        for filename in wanted:
            patiently(lambda filename=filename: fetch(filename, info.sha))
    except InputError:
        raise
    except Exception as error:
        raise explained(error, where) from None
    return folder, ignored


def _look_through(where: str, names: list[str]) -> list[str]:
    """Refuse a repository with file names that lead elsewhere; the names of those of its files that are never read."""
    stray = [name for name in names if "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts]
    if stray:
        raise InputError(
            f"{where}: the repository lists {stray[0]!r}, a name that leads out of it; nothing was fetched"
        )
    unsafe = [name for name in names if name.endswith(_UNSAFE)]
    if unsafe:
        _log.info("%s: ignored %s (only json and safetensors are read)", where, ", ".join(unsafe))
    return unsafe


def check_hashes(where: str, files: list[Path], sha256: Mapping[str, str] | None = None) -> None:
    """Compare files of the client's cache with the hashes that the Hub announced for them.

    The cache names each file after its hash (sha256 for large files, git's for others) and links to it. A file that is
    another one is removed, so that the next call fetches it anew.

    Args:
        where: the repository, for the message.
        files: in a folder of the cache.
        sha256: the digests of the files by name, where they are known already.

    Raises:
        InputError: naming the file.
    """
    for file in files:
        if not file.is_symlink():  # a file system without links: the hash was not kept
            continue
        blob = file.parent / os.readlink(file)
        if len(blob.name) == 64:
            content = sha256 and sha256.get(file.name) or _digest(file, "sha256")
        elif len(blob.name) == 40:
            content = _digest(file, "sha1", f"blob {file.stat().st_size}\0".encode())
        else:
            continue
        if content != blob.name:
            for path in (file.resolve(), blob, file):
                path.unlink(missing_ok=True)
            raise InputError(
                f"{where}: {file.name} is not the file that the Hub announced (hash {content}, not {blob.name}); it "
                "was removed from the cache: try again"
            )


def _digest(path: Path, algorithm: str, prefix: bytes = b"") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, prefix)).hexdigest()


def forget(repo_id: str, revision: str | None) -> None:
    """Make the cache forget what a branch stood for; the files stay."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    (folder / "refs" / (revision or constants.DEFAULT_REVISION)).unlink(missing_ok=True)


def patiently(call: Callable[[], _T]) -> _T:
    """The result of a request, repeated a few times while the Hub itself is at fault or the connection breaks."""
    for pause in _PAUSES:
        try:
            return call()
        except Exception as error:
            if not _may_pass(error):
                raise
            _log.warning("the Hub: %s; once more in %d s", _reason(error), pause)
        time.sleep(pause)
    return call()


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    # A connection that breaks may hold the next time; one that is not made at all will not be made in a second.
    return status >= 500 if status else _is_transport(error) and type(error).__name__ != "ConnectError"


def explained(error: Exception, where: str) -> InputError:
    """What the client's exception means for the user: the repository, the reason and the remedy in one line.

    An exception that is none of the client's, the network's or the disk's is raised again: it is our fault.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.LocalTokenNotFoundError):
        return InputError(f"{where}: a token is needed; `hf auth login`, or give token=")
    if isinstance(error, errors.GatedRepoError):
        return InputError(f"{where}: access must be granted on its page first; then `hf auth login`, or give token=")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(f"{where}: no such repository on the Hub (or a private one: `hf auth login`, or give token=)")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{where}: the repository has no such revision")
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return InputError(
            f"{where}: not in the cache, and the Hub was not asked or not reached; connect, and unset HF_HUB_OFFLINE "
            "and local_files_only"
        )
    if isinstance(error, errors.EntryNotFoundError):
        missing = CONFIG_NAME if CONFIG_NAME in str(error) else WEIGHTS_NAME
        return InputError(f"{where}: the repository has no {missing}; other formats are never fetched")
    if status := _status(error):
        remedies = {
            401: "the token was not accepted; `hf auth login` with a valid one, or give token=",
            403: "the token does not allow this; give one of a user who may",
            412: "the repository was changed meanwhile; try again",
            429: "too many requests; wait a few minutes",
        }
        remedy = remedies.get(status, "the Hub is at fault; try again later" if status >= 500 else "check the request")
        return InputError(f"{where}: the Hub answers {_reason(error)}: {remedy}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{where}: the disk is full; free some of it, or give cache_dir= (HF_HOME) on another one")
    if _is_transport(error):
        return InputError(f"{where}: the Hub cannot be reached ({_reason(error)}); check the connection and try again")
    if isinstance(error, OSError | errors.HFValidationError):
        return InputError(f"{where}: {_reason(error)}")
    raise error


def _status(error: Exception) -> int:
    """The HTTP status that an exception of the client stands for; 0: none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _is_transport(error: Exception) -> bool:
    # The client's HTTP library differs from version to version (httpx, httpx2), and so do its classes.
    return type(error).__module__.split(".")[0].startswith("httpx")


def _reason(error: Exception) -> str:
    """The Hub's own words where there are some; never an address, which could hold a secret."""
    if status := _status(error):
        message = " ".join((getattr(error, "server_message", None) or "").split())
        return f"{status} ({message[:200]})" if message else str(status)
    return " ".join(str(error).split())[:300] or type(error).__name__
