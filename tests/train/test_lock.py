"""One process trains in a folder: a second is told who does, and what a dead one left behind does not stop anybody."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.train import _lock
from nfnet_eqx.train._lock import LOCK_NAME, locked


def write(folder: Path, **owner: object) -> None:
    (folder / LOCK_NAME).write_text(json.dumps(_lock._place() | {"since": "today", "token": "t"} | owner))


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_run_is_told_who_holds_the_folder_and_the_first_leaves_nothing(tmp_path: Path):
    with locked(tmp_path):
        with (
            pytest.raises(InputError, match=rf"a run is going on there, in process {os.getpid()} on .*choose another"),
            locked(tmp_path),
        ):
            raise AssertionError("both run")
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("owner", [{"process": os.getppid()}, {"host": "another", "process": 1}, {"process": "x"}, {}])
def test_a_lock_of_a_living_or_unknown_process_holds(owner: dict[str, object], tmp_path: Path):
    write(tmp_path, **owner)
    with pytest.raises(InputError, match="a run is going on there"), locked(tmp_path):
        pass
    assert (tmp_path / LOCK_NAME).exists()


def test_a_lock_that_was_left_behind_is_taken(tmp_path: Path):
    write(tmp_path, process=ended_process())
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["process"] == os.getpid()
    write(tmp_path, process=os.getpid())  # a restarted container: our number, and not us
    with locked(tmp_path):
        pass
    write(tmp_path, host="another", process=1)
    os.utime(tmp_path / LOCK_NAME, (0, time.time() - 600))  # touched by nobody for ten minutes
    with locked(tmp_path):
        pass
    (tmp_path / LOCK_NAME).write_bytes(b"\xff half a line")
    os.utime(tmp_path / LOCK_NAME, (0, time.time() - 600))
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [{"boot": "another"}, {"process_namespace": "pid:[1]"}])
def test_a_process_that_cannot_be_seen_from_here_is_not_taken_for_gone(place: dict[str, object], tmp_path: Path):
    write(tmp_path, process=ended_process(), **place)
    with pytest.raises(InputError, match="a run is going on there"), locked(tmp_path):
        pass
    os.utime(tmp_path / LOCK_NAME, (0, time.time() - 600))
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("links", [True, False])
def test_of_two_who_find_a_dead_lock_the_second_does_not_remove_that_of_the_first(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_link(*args: object) -> None:
        raise OSError("not supported")

    write(tmp_path, process=ended_process())
    read, looks = _lock._read, 0

    def looked(file: Path) -> dict[str, object] | None:
        nonlocal looks
        owner, looks = read(file), looks + 1
        if looks == 2:  # after its last look at the dead one: the first is faster
            write(tmp_path, host="another", process=1, token="the first's")
        return owner

    monkeypatch.setattr(_lock, "_read", looked)
    if not links:
        monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(InputError, match="a run is going on there, in process 1 on another"), locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    assert read(tmp_path / LOCK_NAME)["token"] == "the first's"


def test_a_holder_whose_lock_was_taken_over_neither_touches_nor_removes_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_lock, "_BEAT", 0.01)
    with locked(tmp_path):
        new = tmp_path / "new"
        new.mkdir()
        write(new, token="another's")
        os.utime(new / LOCK_NAME, (0, 0))
        (new / LOCK_NAME).replace(tmp_path / LOCK_NAME)
        deadline = time.monotonic() + 10
        while any(thread.name == "run-lock" for thread in threading.enumerate()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(thread.name == "run-lock" for thread in threading.enumerate())
        assert (tmp_path / LOCK_NAME).stat().st_mtime == 0
    assert (tmp_path / LOCK_NAME).exists()


def test_the_holder_keeps_its_lock_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_lock, "_BEAT", 0.01)
    with locked(tmp_path):
        os.utime(tmp_path / LOCK_NAME, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / LOCK_NAME).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / LOCK_NAME).stat().st_mtime > 0
    assert not any(thread.name == "run-lock" for thread in threading.enumerate())


def test_a_lock_that_another_thread_has_just_made_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    appeared = _lock._appeared

    def looked_at_once(own: Path, file: Path) -> bool:
        made = appeared(own, file)
        assert not made or not _lock._left_behind(file, json.loads(file.read_text()))
        return made

    monkeypatch.setattr(_lock, "_appeared", looked_at_once)
    with locked(tmp_path):
        pass
    assert not _lock._held and list(tmp_path.iterdir()) == []


def test_a_lock_that_goes_while_it_is_looked_at_costs_the_next_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path, process=os.getppid())
    read, looks = _lock._read, 0

    def looked(file: Path) -> dict[str, object] | None:
        nonlocal looks
        looks += 1
        if looks > 1:
            return read(file)
        (tmp_path / LOCK_NAME).unlink()
        gone = read(file)
        write(tmp_path, process=os.getppid(), token="the next one's")
        return gone

    monkeypatch.setattr(_lock, "_read", looked)
    monkeypatch.setattr(_lock, "_left_behind", lambda file, owner: not owner)  # as of a file that is not there
    with pytest.raises(InputError, match="a run is going on there"), locked(tmp_path):
        pass
    assert looks == 2, "nothing was removed for it"
    assert read(tmp_path / LOCK_NAME)["token"] == "the next one's"
