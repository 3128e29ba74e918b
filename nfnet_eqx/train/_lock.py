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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a run's folder, which exists.

    A lock is taken over when its process is gone from this machine, or when it was not touched for three minutes.

    Raises:
        InputError: another process trains here; the message says which, where, and since when.
    """
    file, token = folder / LOCK_NAME, secrets.token_hex(8)
    owner = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "token": token,
    }
    _take(file, json.dumps(owner).encode())
    _held.add(token)
    ended = threading.Event()
    beat = threading.Thread(target=_touch, args=(file, ended), name="run-lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        _held.discard(token)
        if _read(file).get("token") == token:  # not where somebody took it for left behind
            file.unlink(missing_ok=True)


def _take(file: Path, content: bytes) -> None:
    """Makes the file, as the only one who does."""
    own = file.with_name(f".{LOCK_NAME}.{secrets.token_hex(4)}")
    own.write_bytes(content)
    try:
        for _ in range(3):
            if _appeared(own, file):
                return
            found = _read(file)
            if not _left_behind(file, found):
                raise InputError(
                    f"out (={file.parent}): a run is going on there, in process {found.get('process', '?')} on "
                    f"{found.get('host', '?')} since {found.get('since', '?')}; wait for it, stop it, or choose "
                    f"another folder (if it is gone for certain, delete {file})"
                )
            # Of two who find it left behind, one takes it away; its new lock is not the one that was looked at.
            if _read(file).get("token") == found.get("token"):
                file.unlink(missing_ok=True)
        raise InputError(f"{file}: several processes start a run here at once; start one")
    finally:
        own.unlink(missing_ok=True)


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
    if owner.get("host") != socket.gethostname() or type(owner.get("process")) is not int:
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


def _read(file: Path) -> dict[str, Any]:
    try:
        owner = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _touch(file: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(file)
