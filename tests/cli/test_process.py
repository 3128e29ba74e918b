"""The command as a process of its own: lost streams, other encodings, Ctrl-C; and a program that only calls `main`."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nfnet_eqx.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "nfnet_eqx"]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of shell, in which `"$@"` is `python -m nfnet_eqx`."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("streams", "status"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&-", 0),
        ("<&- >&- 2>&-", 0),
        ("> >(true)", 0),
        ("> /dev/full", 2),
        ("2> /dev/full", 0),
    ],
)
def test_a_lost_stream_decides_nothing_but_a_full_disk_under_the_result(streams: str, status: int):
    result = shell(f'"$@" list {streams}')
    assert result.returncode == status
    assert result.stderr == ("nfnet-eqx: stdout: No space left on device\n" if status else "")


@pytest.mark.parametrize("streams", [">&-", "2>&-", "2> /dev/full", "2> >(true)"])
def test_a_refusal_that_nobody_reads_stays_a_refusal(streams: str):
    assert shell(f'"$@" info no_such_model {streams}').returncode == 2


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path: Path):
    """With descriptor 2 free, the next file that is opened would get it, and messages would go into the file."""
    code = (
        "import sys; from nfnet_eqx.cli import _main, _process\n"
        "_process.call = lambda *_, **__: sys.exit(open('data', 'w').fileno())\n"
        "sys.argv[1:] = ['list']; _process.console_main()"
    )
    command = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
    assert result.returncode > 2


LABELLED = r"""
import sys
from nfnet_eqx.cli import _main, _process

def call(argv, when_loaded):
    print("L\xf6we \u732b \udcff")
    print("L\xf6we \u732b \udcff", file=sys.stderr)

_process.call = call
_process.console_main()
"""


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_what_an_encoding_lacks_is_escaped(environment: dict[str, str]):
    result = subprocess.run(
        [sys.executable, "-c", LABELLED], cwd=ROOT, env=os.environ | environment, capture_output=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == result.stderr == rb"L\xf6we \u732b \udcff" + b"\n"


INTERRUPTED = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started with
from nfnet_eqx.cli import console_main

def interrupt():
    time.sleep(float(sys.argv.pop()))
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
time.sleep(0.01)
sys.argv[1:] = ["train", "--recipe", "smoke", "--out", sys.argv[1]]
console_main()
"""


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.25, 0.5, 1.0, 2.0])
def test_an_interrupt_early_ends_it_at_once_without_a_traceback(seconds: float, tmp_path: Path):
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "run"), str(seconds)]
    start = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 130, result.stderr
    assert "Traceback" not in result.stderr and "KeyboardInterrupt" not in result.stderr
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert time.monotonic() - start < seconds + 30  # on a busy machine; the run itself takes longer


CALLBACK = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from nfnet_eqx.cli import _process

class Callback:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def call(argv, when_loaded):
    when_loaded()
    Callback()

_process.call = call
_process.console_main()
"""


def test_an_interrupt_that_python_would_ignore_ends_it_too():
    """Within a finalizer Python prints the exception and goes on, as if nobody had asked."""
    result = subprocess.run([sys.executable, "-c", CALLBACK], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (130, "")


MASKED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from nfnet_eqx.cli import _process

def call(argv, when_loaded):
    when_loaded()
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("INTERNAL: CpuCallback error") from None

_process.call = call
_process.console_main()
"""


def test_an_interrupt_that_xla_tells_as_an_error_of_its_own_is_not_our_fault():
    result = subprocess.run([sys.executable, "-c", MASKED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (130, "")


TERMINATED = """
import signal, sys
from nfnet_eqx.cli import _process

def call(argv, when_loaded):
    with _process.sigterm() as stop:
        if argv == ["early"]:
            signal.raise_signal(signal.SIGTERM)
        before = stop()
        signal.raise_signal(signal.SIGTERM)
        print(before, stop())

_process.call = call
_process.console_main()
"""


@pytest.mark.parametrize(("when", "status", "out"), [("early", -signal.SIGTERM, ""), ("late", 0, "False True\n")])
def test_sigterm_is_answered_by_saving_once_there_is_something_to_save(when: str, status: int, out: str):
    command = [sys.executable, "-c", TERMINATED, when]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (status, out, "")


def test_the_command_is_there_before_jax_is():
    """So an interrupt meets our handler, whatever is being imported."""
    code = "import sys, nfnet_eqx.cli; print(*sorted({'jax', 'numpy', 'tyro', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "\n"


def test_a_program_that_calls_main_keeps_all_that_is_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    def state() -> dict[str, object]:
        names = ("", "nfnet_eqx", "absl", "asyncio")
        loggers = {name: logging.getLogger(name) for name in names}
        return {
            "streams": (sys.stdin, sys.stdout, sys.stderr),
            "hooks": (sys.unraisablehook, sys.excepthook),
            "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
            "levels": {name: logger.level for name, logger in loggers.items()},
            "handlers": {name: list(logger.handlers) for name, logger in loggers.items() if name == "nfnet_eqx"},
            "propagate": {name: logger.propagate for name, logger in loggers.items()},
        }

    import nfnet_eqx.cli.train  # noqa: F401  (what an import of Orbax does is Orbax's)

    before = state()
    assert main(["list", "nfnet_f0"]) == 0
    # It comes as far as the data: inside everything that a run sets up.
    assert main(["train", "--recipe", "smoke", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 2
    assert "none" in capsys.readouterr().err
    assert state() == before


@pytest.mark.parametrize("text", ["RESOURCE_EXHAUSTED: Out of memory allocating 796380592704 bytes.", None])
def test_too_little_memory_is_not_told_as_our_fault(
    text: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from nfnet_eqx.cli import list as command

    def fail(*patterns: str) -> list[str]:
        raise MemoryError("Unable to allocate 2. TiB") if text is None else RuntimeError(text)

    monkeypatch.setattr(command, "list_models", fail)
    assert main(["list"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "not enough memory" in err and "smaller batch" in err and "fault of" not in err


def test_json_is_what_a_pipe_carries():
    result = shell('"$@" list nfnet_f0 --json')
    assert [row["name"] for row in json.loads(result.stdout)] == ["nfnet_f0"] and result.stderr == ""


IGNORED = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from nfnet_eqx.cli import _process

def call(argv, when_loaded):
    when_loaded()
    signal.raise_signal(signal.SIGINT)
    print("went on")

_process.call = call
_process.console_main()
"""


def test_an_interrupt_that_the_caller_ignores_stays_ignored():
    """A shell starts `nfnet-eqx ... &` in a script so: Ctrl-C is not meant for it."""
    result = subprocess.run([sys.executable, "-c", IGNORED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "went on\n", "")
