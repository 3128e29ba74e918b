"""A sweep of real runs in processes of its own: killed, shared, interrupted, it ends as an unbroken one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import nfnet_eqx as nfx
from tests.scaling.sweeping import results, start_worker, write_images, write_toml

pytestmark = pytest.mark.slow


class Study(NamedTuple):
    """A sweep, what XLA compiles for it, and the folder of an unbroken one."""

    file: Path
    cache: Path
    whole: Path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Of its four runs, those with the absurd learning rate diverge."""
    folder = tmp_path_factory.mktemp("study")
    data = write_images(folder / "images")
    study = Study(write_toml(folder / "study.toml", data, rates="[0.4, 1e9]"), folder / "cache", folder / "whole")
    worker = start_worker(study.file, study.whole, study.cache)
    worker.join()
    assert worker.exitcode == 0
    return study


def test_a_sweep_has_a_row_for_each_run_and_a_diverged_one_is_a_result(study: Study):
    rows = results(study.whole)
    assert [(row["run"], row["status"]) for row in rows] == [
        ("w8-e1-lr0.4-s0", "done"),
        ("w8-e1-lr1000000000-s0", "diverged"),
        ("w12-e1-lr0.4-s0", "done"),
        ("w12-e1-lr1000000000-s0", "diverged"),
    ]
    assert all(0 < row["loss"] < 2 and row["images"] == 64 for row in rows if row["status"] == "done")
    for run in (study.whole / "runs").iterdir():
        assert {path.name for path in run.iterdir()} == {"settings.json", "result.json", "train"}
        assert {path.name for path in (run / "train").iterdir()} == {"run.json", "metrics.jsonl"}
        reason = json.loads((run / "result.json").read_text())["reason"]
        assert ("loss" in reason) == ("lr1000000000" in run.name)


def test_a_sweep_that_is_killed_at_ten_random_moments_ends_as_an_unbroken_one(study: Study, tmp_path: Path):
    began = time.monotonic()
    worker = start_worker(study.file, tmp_path / "unbroken", study.cache)
    worker.join()
    seconds = time.monotonic() - began  # with everything compiled, on a machine as busy as this one is now
    assert worker.exitcode == 0 and results(tmp_path / "unbroken") == results(study.whole)

    moments, kills, sweeps = random.Random(0), 0, 0
    while kills < 10:  # a sweep takes several; where it ends before the tenth, another begins
        out, killed = tmp_path / f"sweep{sweeps}", True
        while killed:
            worker = start_worker(study.file, out, study.cache)
            worker.join(seconds * moments.uniform(0.05, 0.5) if kills < 10 else None)
            killed = worker.is_alive()
            kills += killed
            worker.kill()
            worker.join()
        sweeps += 1
        assert worker.exitcode == 0
        assert results(out) == results(study.whole)
        assert not list(out.rglob("checkpoints")) and not list(out.rglob("run.lock"))
    assert kills == 10 and sweeps < 10


def test_two_workers_end_as_one_also_when_a_third_is_killed_among_them(study: Study, tmp_path: Path):
    workers = [start_worker(study.file, tmp_path / "out", study.cache) for _ in range(3)]
    workers[0].join(2)
    workers[0].kill()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers[1:]] == [0, 0]
    assert results(tmp_path / "out") == results(study.whole)


# Whatever the tests were started with: a shell starts what goes to the background with interrupts ignored.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from nfnet_eqx.cli import console_main
console_main()
"""


def test_ctrl_c_saves_and_the_command_resumes(study: Study, tmp_path: Path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", INTERRUPTIBLE, "scaling", "sweep", str(study.file), "--out", str(out)]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(study.cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.glob("runs/*/train/metrics.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate()
    assert process.returncode == 130, told
    assert "saving, then stopping" in told and "Traceback" not in told
    assert "of 4 runs are left; the same command resumes them" in printed

    result = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["runs"], said["left"], said["done"], said["diverged"]) == (4, 0, 2, 2)
    assert set(said["reasons"]) == {"w8-e1-lr1000000000-s0", "w12-e1-lr1000000000-s0"}
    assert "4 of 4 runs, 100.0 % of the FLOPs" in result.stderr
    assert results(out) == results(study.whole)


def test_checkpoints_stay_where_they_are_wanted(study: Study, tmp_path: Path):
    file = tmp_path / "study.toml"
    file.write_text("keep_checkpoints = true\n" + study.file.read_text().replace("[0.4, 1e9]", "[0.4]"))
    worker = start_worker(file, tmp_path / "out", study.cache)
    worker.join()
    assert worker.exitcode == 0
    folder = tmp_path / "out" / "runs" / "w8-e1-lr0.4-s0" / "train"
    assert {path.name for path in folder.iterdir()} == {"run.json", "metrics.jsonl", "checkpoint"}
    assert nfx.from_pretrained(folder).config.widths == (8,)
    rows = [row for row in results(study.whole) if row["status"] == "done"]
    assert results(tmp_path / "out") == rows
