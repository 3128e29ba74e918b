"""Two paths swapped in one step, which Python's `os` does not offer."""

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100  # Linux: a path is meant as it stands, not from some open folder
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS


def exchange(one: Path, other: Path) -> None:
    """Swap what two paths name: whoever opens either finds the one or the other, at every moment.

    Args:
        one: a file or folder.
        other: another one, in the same file system.

    Raises:
        OSError: one of them is missing or a mount point, or the system or the file system (NFS, say) cannot do this.

    References:
        renameat2(2) of Linux, renamex_np(2) of macOS.
    """
    library = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(paths[0], paths[1], ctypes.c_uint(_EXCHANGE))
        else:
            failed = library.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_EXCHANGE))
    except AttributeError:  # a C library without it
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), os.fspath(one)) from None
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(one), None, os.fspath(other))
