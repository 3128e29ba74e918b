"""Checkpoints of the Hub on this machine: its client's cache first, then the network.

Only `config.json` and safetensors files are fetched: never a pickle, never code. The client takes what arrives for what
was meant. Here the hashes that the Hub's API announces are noted in the cache, and every load compares the files with
them.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import digest, read_json, replacing, write_json
from nfnet_eqx.checkpoints import CONFIG_NAME, FOREIGN_SUFFIXES, INDEX_NAME, WEIGHTS_NAME, read_index
from nfnet_eqx.zoo._client import Client, is_hash

# Names of these endings are ignored, with a note: they hold code, or may.
_UNSAFE = (*FOREIGN_SUFFIXES, ".py")

# What is read, if it has the right name.
_READ = (".json", ".safetensors")

# Beside the client's own folders (blobs, refs, snapshots): for each commit, what the API announced of its files.
_NOTES = "nfnet_eqx"

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
    where = repo_id if revision is None else f"{repo_id}@{revision}"
    client = Client.make(token, endpoint)

    def fetch(filename: str, revision: str | None, commit: str) -> Path:
        client.check_answers(repo_id, filename, revision, commit)
        path = client.ask(
            lambda: client.api.hf_hub_download(
                repo_id, filename, revision=revision, cache_dir=None if cache_dir is None else Path(cache_dir)
            )
        )
        return Path(path)

    try:
        # The first question is one that the client does not repeat: a Hub out of reach is told at once.
        commit, hashes, _ = client.listing(repo_id, revision)
        ignored = _look_through(where, list(hashes))
        weights = INDEX_NAME if INDEX_NAME in hashes and WEIGHTS_NAME not in hashes else WEIGHTS_NAME
        _check_listed(where, [CONFIG_NAME, weights], hashes)
        # By name, so that the cache remembers what the name stood for; from then on by commit.
        folder = fetch(CONFIG_NAME, revision, commit).parent
        # Before the weights are there: who ends this process leaves nothing behind that is opened unlooked at.
        noted = _note(folder, hashes)
        wanted = [weights]
        for name in wanted:
            if not (folder / name).exists():
                fetch(name, commit, commit)
            if name == INDEX_NAME:
                check_hashes(where, [folder / name], announced=hashes)
                wanted += read_index(folder / name)
                _check_listed(where, wanted, hashes)
        if not noted:
            check_hashes(where, [folder / name for name in (CONFIG_NAME, *wanted)], announced=hashes)
    except Exception as error:
        raise client.explained(error, where) from None
    return folder, ignored


def _note_of(folder: Path) -> Path:
    return folder.parents[1] / _NOTES / f"{folder.name}.json"


def _note(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Keep what the Hub announced of a commit's files; False where the cache can only be read."""
    note = _note_of(folder)
    try:
        note.parent.mkdir(exist_ok=True)
        with replacing(note) as unfinished:
            write_json(unfinished, {name: value for name, value in hashes.items() if name.endswith(_READ)})
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return False
    return True


def _noted(where: str, folder: Path) -> dict[str, str]:
    """What the Hub announced of a commit's files; nothing where another client fetched them.

    Raises:
        InputError: the note is broken.
    """
    note = _note_of(folder)
    if not note.exists():
        return {}
    with contextlib.suppress(InputError):
        hashes = read_json(note)
        if all(value == "" or is_hash(value) for value in hashes.values()):
            return hashes
    raise InputError(f"{note}: is broken; `nfnet-eqx pull {where}` writes it again")


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

    A commit that another client has fetched has no note of ours. Its files are compared with what that client has kept:
    it calls them by their ETag, which is such a hash, where the file system has links. A file that is another one is
    removed, so that the next call fetches it anew.

    Args:
        where: the repository, for the message.
        files: in the cache's folder of a commit.
        sha256: the digests of the files by name, where they are known already.
        announced: what the Hub says, by name; `None` takes what was noted of it.

    Raises:
        InputError: naming the file.
    """
    if announced is None:
        announced = _noted(where, files[0].parent)
    for file in files:
        linked = file.is_symlink()
        blob = file.parent / os.readlink(file) if linked else file
        expected = announced.get(file.name) or (blob.name if linked and is_hash(blob.name) else "")
        if not expected:
            continue
        if len(expected) == 64:
            found = sha256[file.name] if sha256 else _digest(file, "sha256")
        else:
            found = _digest(file, "sha1", f"blob {file.stat().st_size}\0".encode())
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
        return digest(file, algorithm, prefix)


def forget(repo_id: str, revision: str | None) -> None:
    """Make the default cache forget what a branch stood for, as far as it can be written; the files stay."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    with contextlib.suppress(OSError):
        (folder / "refs" / (revision or constants.DEFAULT_REVISION)).unlink(missing_ok=True)
