"""Small JSON files read with suspicion, and files and folders that are written whole or not at all."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nfnet_eqx._errors import InputError
from nfnet_eqx._exchange import exchange

# Parsed JSON takes some twenty times its size in memory; the largest real header (NFNet-F7+) has a quarter of a MiB.
MAX_JSON_BYTES = 8 * 2**20
# What a killed process left is this old before anyone removes it.
_ABANDONED_AFTER_SECONDS = 60
# Bytes that are hashed at a time.
_PIECE = 2**23


def parse_json(text: bytes, source: str) -> dict[str, Any]:
    """The JSON object in `text`, which a stranger may have written.

    Args:
        text: at most `MAX_JSON_BYTES` of UTF-8.
        source: what it came from, for the message.

    Raises:
        InputError: it is too long, no JSON, no object, or says something twice.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InputError(f"{source}: more than {MAX_JSON_BYTES} bytes of JSON; no checkpoint needs that many")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not valid JSON ({error}); fetch or write the file again") from None
    if not isinstance(value, dict):
        raise InputError(f"{source}: a JSON object is needed, this is a {type(value).__name__}")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    return parse_json(read_bounded(path), str(path))


def read_bounded(path: Path) -> bytes:
    """The content of a file of JSON; of one that is too long, as much as `parse_json` needs to refuse it.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        return file.read(MAX_JSON_BYTES + 1)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as indented JSON; the caller sees to it that a half-written file does no harm (`replacing`)."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def digest(file: BinaryIO, algorithm: str = "sha256", prefix: bytes = b"") -> str:
    """The digest of `prefix` and an open file, whatever its name stands for by now; others may read it as well."""
    # In large pieces: `hashlib.file_digest` takes small ones, and between them waits for its turn among the threads.
    found, piece, position = hashlib.new(algorithm, prefix, usedforsecurity=False), memoryview(bytearray(_PIECE)), 0
    while count := os.preadv(file.fileno(), [piece], position):
        found.update(piece[:count])
        position += count
    return found.hexdigest()


def os_error_text(error: OSError) -> str:
    """What the system says of it ("No space left on device"), without the number and the name of the file."""
    return error.strerror or str(error)


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A path for a new file, which takes the place of `path` when the block ends, and vanishes when the block fails.

    Whoever reads `path` sees the old content or the new, never a part of it.

    Args:
        path: the file.
        overwrite: whether one that exists by then gives way.

    Raises:
        OSError: naming a file; that of a write, on a full disk say, names none until it comes here. `FileExistsError`
            where there is a file that must not give way.
    """
    with _naming(path, path), _workspace(path) as workspace:
        unfinished = workspace / path.name
        yield unfinished
        if overwrite:
            os.replace(unfinished, path)
        else:
            os.link(unfinished, path)  # unlike a rename, this fails where there is a file


@contextlib.contextmanager
def replacing_folder(folder: Path, parts: Sequence[str], *, overwrite: bool = True) -> Iterator[Path]:
    """A new folder, whose files take the place of those in `folder` when the block ends, all of them in one step.

    Whoever opens `folder` finds the old files or the new ones, also when this process is killed: the new folder is
    exchanged for the old one. A link is followed; a part that the new folder lacks stays as it is.

    Some folders must stay themselves: one that holds other things than `parts`, that is a mount point, the working
    directory or another user's, that lies where nothing may be written, or in a file system that cannot exchange (NFS,
    say). In these the files take their places one after the other, in the order of `parts`, and for a moment old and
    new ones lie side by side: they must tell by themselves whether they belong together.

    Args:
        folder: is made where needed.
        parts: the names of all files that the new folder may hold.
        overwrite: whether files that exist by then give way.

    Raises:
        OSError: naming a file. `FileExistsError` where there is a file that must not give way.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    inside = folder.is_dir() and not os.access(folder.parent, os.W_OK | os.X_OK)
    target = folder / folder.name if inside else folder
    with _naming(folder, target), _workspace(target) as workspace:
        unfinished = workspace / folder.name
        unfinished.mkdir()
        yield unfinished
        _put_in_place(unfinished, folder, parts, overwrite)


def _put_in_place(unfinished: Path, folder: Path, parts: Sequence[str], overwrite: bool) -> None:
    """Put a finished folder where it belongs, in one step if that is possible at all."""
    movable = not folder.exists() or not _must_stay(folder, unfinished, parts)
    if movable and folder.exists():
        os.chmod(unfinished, stat.S_IMODE(folder.stat().st_mode))
    if movable and _renamed(unfinished, folder):
        return
    present = os.listdir(folder)
    if present and not overwrite:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(folder))
    if movable:
        for name in set(present) - set(os.listdir(unfinished)):
            shutil.copy2(folder / name, unfinished / name)
        if _exchanged(unfinished, folder):
            # What somebody put there in the meantime is not ours to remove with the old files.
            for name in set(os.listdir(unfinished)) - set(parts):
                os.rename(unfinished / name, folder / name)
            return
    # Near their places first, across file systems if need be, so that only renames are left to be done.
    with _workspace(folder / folder.name) as near:
        for name in os.listdir(unfinished):
            shutil.move(unfinished / name, near / name)
        for name in sorted(os.listdir(near), key=parts.index):
            os.replace(near / name, folder / name)


def _renamed(unfinished: Path, folder: Path) -> bool:
    """Rename a folder to another name, which nothing has or an empty folder."""
    try:
        os.rename(unfinished, folder)
    except OSError:
        if not folder.exists():
            raise
        return False
    return True


def _exchanged(unfinished: Path, folder: Path) -> bool:
    try:
        exchange(unfinished, folder)
    except OSError:  # a file system that cannot, or a mount point that does not look like one
        return False
    return True


def _must_stay(folder: Path, unfinished: Path, parts: Sequence[str]) -> bool:
    """Whether a folder cannot be exchanged for another one without a loss to somebody."""
    old, new = folder.stat(), unfinished.stat()
    others = not all(name in parts and (folder / name).is_file() for name in os.listdir(folder))
    foreign = (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid)
    return others or foreign or os.path.ismount(folder) or _is_entered(folder)


def _is_entered(folder: Path) -> bool:
    """Whether this process works in a folder."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it has been removed
        return False
    return folder in (here, *here.parents)


@contextlib.contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """A folder beside `target` for what is not finished, locked while it is in use; it goes when the block ends.

    One that a killed process left behind goes when the next one is made for the same target: its lock is free.
    """
    _remove_abandoned(target)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: nobody can take one and call it abandoned
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left beside `target`: named as ours are, a minute old, and locked by nobody."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.tmp")
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        if not pattern.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):  # it is in use, it has gone, or it cannot be told
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                # The minute: between its making and its locking, a new one is free too.
                if time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_AFTER_SECONDS:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path, target: Path) -> Iterator[None]:
    """Lets an OSError name `path` where it names nothing, or what lies in the workspace of `target`."""
    try:
        yield
    except OSError as error:
        inside = os.fspath(target.with_name(f".{target.name}."))
        if error.errno is not None and (error.filename is None or os.fsdecode(error.filename).startswith(inside)):
            error.filename = os.fspath(path)
        raise


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")
