"""What the command does to a process that is its own: streams, signals, loggers. `main` leaves a program's alone."""

import contextlib
import io
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from nfnet_eqx.cli._main import INTERRUPTED, OK, call, report

_owned = _interrupted = False


def console_main() -> NoReturn:
    """The command as a process of its own: what the installed script and `python -m nfnet_eqx` call.

    Not for programs: it changes what belongs to the whole process, and ends it. They call `main`.
    """
    global _owned
    _owned = True
    _on_interrupt(_leave)
    _open_missing_streams()
    for name in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
        logging.getLogger(name).addFilter(_without_tokens)
    sys.stdout = _stream(sys.stdout, 1)
    sys.stderr = _stream(sys.stderr, 2)
    _quiet_threads()
    status = OK
    try:
        # Before it only modules are loaded: there is nothing to undo, and what is imported may swallow an interrupt.
        call(sys.argv[1:], when_loaded=lambda: _on_interrupt(_interrupt))
    except (Exception, KeyboardInterrupt) as error:
        if not _interrupted:  # else it is what XLA or Orbax made of that
            status = report(error)
    if _interrupted:
        _leave()  # without waiting for what the devices still compute
    _on_interrupt(_leave)
    sys.exit(status)


def _on_interrupt(handler: Callable[..., object]) -> None:
    """Sets what Ctrl-C does, unless the process was started to ignore it (`nfnet-eqx ... &` in a script)."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def sigterm(*, interrupt: bool = False) -> Iterator[Callable[[], bool]]:
    """A function: whether SIGTERM has come; in a program's process it never has, the program's own handler stays.

    Until the function is called for the first time, the signal ends the process at once: so early there is nothing to
    save. Among several processes JAX installs its own handler later, and they agree on a step to stop after.

    Args:
        interrupt: Ctrl-C is such a signal too; a second one ends the process at once.
    """
    if not _owned:
        yield lambda: False
        return
    came = asked = False

    def stop() -> bool:
        nonlocal asked
        asked = True
        return came

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        if not asked:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal came
        global _interrupted
        if not asked:
            _interrupt(number, frame)
        _interrupted = came = True
        signal.signal(signal.SIGINT, _leave)
        os.write(2, b"nfnet-eqx: saving, then stopping; Ctrl-C again stops at once\n")

    before = signal.signal(signal.SIGTERM, handler)
    if interrupt:
        _on_interrupt(interrupted)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
        if interrupt and not came:
            _on_interrupt(_interrupt)


def keep_compiled(folder: Path) -> None:
    """Keeps what XLA compiles, by host, unless the user keeps it elsewhere; a program's process stays as it is."""
    if _owned and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        import jax  # only here: most commands that need this module need no JAX

        jax.config.update("jax_compilation_cache_dir", str(folder.absolute() / socket.gethostname()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


class _Output(io.FileIO):
    """A stream that may be lost without ending the work: what is written behind a closed pipe goes nowhere.

    Messages and progress may be lost on a full disk as well. What stdout carries is a result: that it could not be
    written is said once.
    """

    _failed = False

    def write(self, data: Any, /) -> int:
        lost = memoryview(data).nbytes
        try:
            written = super().write(data)
        except OSError as error:
            result_lost = self.fileno() == 1 and not isinstance(error, BrokenPipeError)
            if result_lost and not self._failed:
                self._failed = True  # or Python would try once more at its end, and complain
                error.filename = "stdout"
                raise
            return lost
        return lost if written is None else written  # None: a terminal that takes nothing now


def _stream(before: TextIO | None, number: int) -> TextIO:
    """Text to a file descriptor; what its encoding lacks is escaped."""
    raw = _Output(number, "wb", closefd=False)
    at_once = number == 2 or raw.isatty() or getattr(before, "write_through", False)  # the last: `python -u`
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=at_once
    )


def _open_missing_streams() -> None:
    """Opens what the caller closed (`2>&-`); the first data file would take its number, and be written into."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _quiet_threads() -> None:
    """Nothing but our line says that a save failed.

    Orbax raises that where the run waits for the save, and its threads also print it, with a traceback for each array.
    They may outlive the command and print behind its last line; so this stays until the process ends.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    otherwise = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):  # it came during a callback, which nobody can leave
            _leave()
        # What was still being written when Orbax gave up.
        if not isinstance(unraisable.exc_value, RuntimeError) or str(unraisable.exc_value) != "Event loop is closed":
            otherwise(unraisable)

    sys.unraisablehook = hook


def _without_tokens(record: logging.LogRecord) -> bool:
    """The Hub's client prints what a server says, which may be the token that it was sent."""
    from nfnet_eqx.zoo import redacted  # it is loaded where the client is

    record.msg, record.args = redacted(record.getMessage()), ()
    return True


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C: unfinished files are removed on the way out; a second one does not wait for that."""
    global _interrupted
    _interrupted = True
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


def _leave(*_: object) -> NoReturn:
    os._exit(INTERRUPTED)
