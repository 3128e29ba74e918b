"""Exit statuses, streams and messages of the command line, whichever the command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nfnet_eqx.cli import _main

ROOT = Path(__file__).resolve().parents[2]

FAULTY = '''
from typing import Annotated
import tyro
from nfnet_eqx._errors import InputError

def faulty(kind: Annotated[str, tyro.conf.Positional]) -> None:
    """Fail.

    Example:
        nfnet-eqx faulty input

    Args:
        kind: how.
    """
    if kind == "input":
        raise InputError("picture.png: 0 bytes are no picture;\\nfetch it \\x1b[31magain")
    if kind == "file":
        open("/no/such/file")
    if kind == "interrupt":
        raise KeyboardInterrupt
    raise RuntimeError("a defect")
'''


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that fails in the way it is told to."""
    (tmp_path / "faulty_command.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(_main.COMMANDS, "faulty", _main.Command("faulty_command", "faulty", "fails"))


def test_refused_input_is_one_printable_line_and_exit_2(faulty: None, capsys: pytest.CaptureFixture[str]):
    assert _main.main(["faulty", "input"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "nfnet-eqx: picture.png: 0 bytes are no picture; fetch it \\x1b[31magain\n"


def test_a_file_that_cannot_be_opened_is_one_line_and_exit_2(faulty: None, capsys: pytest.CaptureFixture[str]):
    assert _main.main(["faulty", "file"]) == 2
    assert capsys.readouterr().err == "nfnet-eqx: /no/such/file: No such file or directory\n"


def test_a_defect_is_a_traceback_a_request_for_a_report_and_exit_1(faulty: None, capsys: pytest.CaptureFixture[str]):
    assert _main.main(["faulty", "defect"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "RuntimeError: a defect"
    assert "report" in lines[-1]


def test_an_interrupt_is_silent(faulty: None, capsys: pytest.CaptureFixture[str]):
    assert _main.main(["faulty", "interrupt"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [["faulty"], ["faulty", "input", "--colour"], ["faulty", "a", "b"]])
def test_arguments_that_do_not_fit_exit_2_and_point_to_help(
    faulty: None, arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped:
        _main.main(arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "nfnet-eqx faulty --help" in err


@pytest.mark.parametrize(
    ("name", "hint"),
    [("clasify", "did you mean classify?"), ("frobnicate", "see nfnet-eqx --help"), ("", "see nfnet-eqx")],
)
def test_an_unknown_command_names_the_nearest(name: str, hint: str, capsys: pytest.CaptureFixture[str]):
    assert _main.main([name]) == 2
    err = capsys.readouterr().err
    assert repr(name) in err and hint in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert _main.main(arguments) == 0
    out = capsys.readouterr().out
    assert [name for name in _main.COMMANDS if f"\n  {name}" not in out] == []
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("name", sorted(_main.COMMANDS))
def test_the_help_of_every_command_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        _main.main([name, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: nfnet-eqx {name}" in out
    assert f"    nfnet-eqx {name} " in out, "the docstring has no example"
    assert "Raises" not in out


def test_the_version_is_that_of_the_installed_package():
    output = subprocess.run(
        [sys.executable, "-m", "nfnet_eqx", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert output.startswith("nfnet-eqx 0.")


def test_a_reader_that_closes_the_pipe_is_no_error():
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "nfnet_eqx", "list"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")
