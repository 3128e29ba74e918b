"""The lock file: which commit and bytes each checkpoint of the Hub was, so that later loads can be held to them."""

import os
import re
from pathlib import Path
from typing import Any

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import read_json, replacing, write_json
from nfnet_eqx.checkpoints import Origin

_COMMIT, _SHA256 = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{64}")


def check_lock(path: str | os.PathLike[str]) -> None:
    """Raises, before the work, where a lock file could not be written after it."""
    path = Path(path)
    if path.exists():
        _read(path)
    elif not path.absolute().parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; name a file in one that does")


def write_lock(path: str | os.PathLike[str], where: str, origin: Origin) -> None:
    """Note a checkpoint in a lock file, which is made where there is none; its other entries stay.

    Args:
        path: the file.
        where: the repository as it is asked for: `"org/name"` or `"org/name@revision"`.
        origin: what it was found to be.

    Raises:
        InputError: the file exists and is no lock file.
    """
    path = Path(path)
    entries = _read(path) if path.exists() else {}
    entries[where] = {"commit": origin.commit, "sha256": dict(origin.sha256)}
    with replacing(path) as unfinished:
        write_json(unfinished, {"checkpoints": dict(sorted(entries.items()))})


def read_lock(path: str | os.PathLike[str], where: str) -> Origin:
    """What a lock file says about a repository.

    Raises:
        InputError: there is no such file, it is no lock file, or it says nothing about the repository.
    """
    entries = _read(Path(path))
    if where not in entries:
        raise InputError(f"{path}: has no entry for {where}; `nfnet-eqx pull {where} --lock {path}` adds one")
    return Origin(where.partition("@")[0], entries[where]["commit"], entries[where]["sha256"])


def check_locked(path: str | os.PathLike[str], where: str, locked: Origin, read: Origin) -> None:
    """Raises where the files that were read are not those of the lock file."""
    names = sorted(locked.sha256.keys() | read.sha256.keys())
    different = [name for name in names if locked.sha256.get(name) != read.sha256.get(name)]
    if different:
        name = different[0]
        raise InputError(
            f"{where}: {name} is not the one of {path} (sha256 {read.sha256.get(name)}, locked "
            f"{locked.sha256.get(name)}); if the change is meant: nfnet-eqx pull {where} --lock {path}"
        )


def _read(path: Path) -> dict[str, Any]:
    entries = read_json(path).get("checkpoints")
    if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
        raise InputError(f"{path}: is no lock file of nfnet-eqx; `nfnet-eqx pull ID --lock FILE` writes one")
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), dict):
        return False
    hashes = entry["sha256"].values()
    return _matches(_COMMIT, entry.get("commit")) and all(_matches(_SHA256, value) for value in hashes)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
