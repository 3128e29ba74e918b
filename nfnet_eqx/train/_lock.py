"""One process at a time trains in a folder: a file that says which, and shows by its age that it is still there."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nfnet_eqx._errors import InputError

LOCK_NAME = "run.lock"

# The holder touches its file this often, in seconds; one that was not touched for so long was left behind.
_BEAT, _OLD = 20, 180

# Of this process: a process number comes again, in a restarted container even at once.
_held: set[str] = set()


class Locked(InputError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which exists: a run's, say.

    A lock is taken over when it was not touched for three minutes, or at once when its process is known to be gone:
    where this process would see it.

    Raises:
        Locked: another process trains here; the message says which, where, and since when.
    """
    file, token = folder / LOCK_NAME, secrets.token_hex(8)
    owner = {
        **_place(),
        "process": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "token": token,
    }
    _held.add(token)  # before the file is there: another thread would take it for one that was left behind
    try:
        _take(file, json.dumps(owner).encode())
        ended = threading.Event()
        beat = threading.Thread(target=_touch, args=(file, token, ended), name="run-lock", daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()
            _remove(file, owner)
    finally:
        _held.discard(token)


def _take(file: Path, content: bytes) -> None:
    """Makes the file, as the only one who does."""
    own = _temporary(file)
    own.write_bytes(content)
    try:
        for _ in range(3):
            if _appeared(own, file):
                return
            found = _read(file)
            if found is None:  # it went just now
                continue
            if not _left_behind(file, found):
                raise Locked(
                    f"out (={file.parent}): a run is going on there, in process {found.get('process', '?')} on "
                    f"{found.get('host', '?')} since {found.get('since', '?')}; wait for it, stop it, or choose "
                    f"another folder (if it is gone for certain, delete {file}, or wait three minutes)"
                )
            _remove(file, found)
        raise Locked(f"{file}: several processes start a run here at once; start one")
    finally:
        own.unlink(missing_ok=True)


def _remove(file: Path, owner: dict[str, Any]) -> None:
    """Removes the lock of this owner; one of another, who may have come since it was looked at, stays."""
    if _read(file) != owner:
        return
    # Under a name that nobody else knows it cannot become another's between the look and the removal.
    aside = _temporary(file)
    try:
        os.rename(file, aside)
    except FileNotFoundError:
        return
    if _read(aside) != owner:
        _appeared(aside, file)
    aside.unlink(missing_ok=True)


def _temporary(file: Path) -> Path:
    return file.with_name(f".{LOCK_NAME}.{secrets.token_hex(4)}")


def _appeared(own: Path, file: Path) -> bool:
    """Gives a file its name, unless there is one of this name; it is never there in part."""
    try:
        os.link(own, file)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        with contextlib.suppress(FileExistsError), file.open("xb") as made:
            made.write(own.read_bytes())
            return True
        return False
    return True


def _left_behind(file: Path, owner: dict[str, Any]) -> bool:
    try:
        if time.time() - file.stat().st_mtime > _OLD:
            return True
    except FileNotFoundError:
        return True
    if any(owner.get(name) != here for name, here in _place().items()) or type(owner.get("process")) is not int:
        return False
    if owner["process"] == os.getpid():
        return owner.get("token") not in _held
    try:
        os.kill(owner["process"], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # somebody else's
        return False
    return False


def _place() -> dict[str, str | None]:
    """Where a process number means one process: containers of one name, on one disk, each have their own numbers."""
    place: dict[str, str | None] = {"host": socket.gethostname(), "boot": None, "process_namespace": None}
    with contextlib.suppress(OSError):  # not Linux
        place["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        place["process_namespace"] = os.readlink("/proc/self/ns/pid")
    return place


def _read(file: Path) -> dict[str, Any] | None:
    """Whose lock a file is; empty: nobody can tell; `None`: there is no such file."""
    try:
        owner = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _touch(file: Path, token: str, ended: threading.Event) -> None:
    """Keeps a lock young, until the end or until somebody took it for left behind and it is another's."""
    while not ended.wait(_BEAT):
        found = (_read(file) or {}).get("token", token)  # a file that cannot be read just now may be ours
        if found != token:
            return
        with contextlib.suppress(OSError):
            os.utime(file)
