"""The worker of a sweep, with a training that takes no time: what it makes of every end of a run, and of other workers.

`test_sweep_processes.py` has the real one.
"""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling import SweepConfig, _results, _sweep, plan_sweep, read_points, read_sweep, sweep, sweep_left
from nfnet_eqx.train import Diverged, Evaluation, Locked, Result, TrainConfig, _lock
from tests.scaling.sweeping import results, write_images, write_toml


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture
def config(data: Path, tmp_path: Path) -> SweepConfig:
    return read_sweep(write_toml(tmp_path / "study.toml", data, epochs="[1, 2]"))


def evaluation(losses: float = 1.0) -> Evaluation:
    zeros = np.zeros(4, np.int32)
    return Evaluation(
        labels=zeros, predictions=zeros, ranks=zeros, losses=np.full(4, losses, np.float32), num_classes=2
    )


def ends_well(config: TrainConfig, **_: object) -> Result:
    """What `train` leaves and returns, at once."""
    config.out.mkdir(parents=True)
    (config.out / "checkpoints" / "4").mkdir(parents=True)
    (config.out / "run.json").write_text("{}")
    line = {"step": 4, "split": "train", "loss": 1.0, "seconds": 2.0}
    (config.out / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return Result(step=4, total_steps=4, evaluation=evaluation(), checkpoint=None)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The runs that were trained, in their order; `train` takes no time."""
    made: list[TrainConfig] = []

    def train(config: TrainConfig, **others: object) -> Result:
        made.append(config)
        return ends_well(config, **others)

    monkeypatch.setattr(_sweep, "train", train)
    return made


def fails(monkeypatch: pytest.MonkeyPatch, run: str, *faults: Exception) -> list[str]:
    """Lets one run fail with these, one a try, and gives the tries of all."""
    tries: list[str] = []

    def train(config: TrainConfig, **others: object) -> Result:
        name = config.out.parent.name
        tries.append(name)
        assert not config.out.exists(), "a try begins in an empty folder"
        if name == run and tries.count(run) <= len(faults):
            config.out.mkdir(parents=True)
            (config.out / "half").touch()
            raise faults[tries.count(run) - 1]
        return ends_well(config, **others)

    monkeypatch.setattr(_sweep, "train", train)
    return tries


def test_a_plan_has_every_run_with_its_cost(config: SweepConfig):
    plan = plan_sweep(config)
    assert [run.id for run in plan.runs] == [
        f"w{width}-e{epochs}-lr{rate}-s0" for width in (8, 12) for epochs in (1, 2) for rate in ("0.4", "0.8")
    ]
    first, last = plan.runs[0], plan.runs[-1]
    assert (first.steps, first.images, first.unique_images, first.steps_per_epoch) == (4, 64, 64, 4)
    assert (last.steps, last.images, last.unique_images) == (8, 128, 64)
    assert first.dataset == "images (64 images)" and first.family == "NFNet" and first.recipe == "smoke"
    assert last.parameters > first.parameters and last.flops == 8 * last.flops_per_step
    assert plan.flops == sum(run.flops for run in plan.runs)
    assert last.unique_among(32) == 32


def test_every_run_is_made_once_the_cheapest_first_and_only_its_record_stays(
    config: SweepConfig, trained: list[TrainConfig], tmp_path: Path
):
    out = tmp_path / "out"
    result = sweep(config, out)
    assert (result.runs, result.left, result.reasons, result.file) == (8, 0, {}, out / "results.jsonl")
    flops = {run.id: run.flops for run in plan_sweep(config).runs}
    made = [run.out.parent.name for run in trained]
    assert sorted(made) == sorted(flops) and [flops[run] for run in made] == sorted(flops.values())
    assert all(run.out == out / "runs" / run.out.parent.name / "train" for run in trained)
    rows = results(out)
    assert [row["run"] for row in rows] == [run.id for run in plan_sweep(config).runs]
    assert rows[0] | {"loss": 0} == {
        "run": "w8-e1-lr0.4-s0", "model": "w8", "family": "NFNet", "dataset": "images (64 images)", "epochs": 1,
        "parameters": plan_sweep(config).runs[0].parameters, "images": 64, "unique_images": 64,
        "flops": flops["w8-e1-lr0.4-s0"], "learning_rate": 0.4, "seed": 0, "loss": 0, "top1": 100.0, "final": True,
        "status": "done",
    }  # fmt: skip
    assert json.loads((out / "results.jsonl").read_text().splitlines()[0])["seconds"] == 2.0
    folder = out / "runs" / "w8-e1-lr0.4-s0"
    assert sorted(path.name for path in folder.iterdir()) == ["result.json", "settings.json", "train"]
    assert sorted(path.name for path in (folder / "train").iterdir()) == ["metrics.jsonl", "run.json"]
    left = sweep_left(plan_sweep(config), out)
    assert (left.runs, left.flops, left.seconds) == (0, 0, 0)

    before = (out / "results.jsonl").read_bytes()
    trained.clear()
    sweep(config, out)
    assert trained == [] and (out / "results.jsonl").read_bytes() == before


def test_a_sweep_grows_with_its_file_and_what_was_made_stays(
    config: SweepConfig, trained: list[TrainConfig], tmp_path: Path
):
    small = dataclasses.replace(config, epochs=(2,), models=config.models[1:])
    assert sweep_left(plan_sweep(small), tmp_path / "out").seconds is None
    sweep(small, tmp_path / "out")
    left = sweep_left(plan_sweep(config), tmp_path / "out")
    assert left.runs == 6 and left.seconds is not None and left.seconds > 0
    trained.clear()
    sweep(config, tmp_path / "out")
    assert len(trained) == 6
    sweep(config, tmp_path / "whole")
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    # Who works on the smaller one takes nothing away.
    sweep(small, tmp_path / "out")
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_run_of_other_settings_is_refused_by_name(config: SweepConfig, trained: list[TrainConfig], tmp_path: Path):
    sweep(config, tmp_path / "out")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        InputError,
        match=r"w8-e1-lr0.4-s0 and 7 more with batch_size \(was 16, now 32\), .*momentum \(was 0.9, now 0.8\); choose "
        "another folder, give the model another name",
    ):
        train = {"batch_size": 32, "optimizer": {"momentum": 0.8}}
        sweep(dataclasses.replace(config, train=config.train | train), tmp_path / "out")
    models = (dataclasses.replace(config.models[0], family="Other"), config.models[1])
    with pytest.raises(InputError, match=r"w8-e1-lr0.4-s0 and 3 more with family \(was NFNet, now Other\)"):
        sweep(dataclasses.replace(config, models=models), tmp_path / "out")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    # What changes no result may differ.
    sweep(dataclasses.replace(config, train=config.train | {"num_threads": 2}), tmp_path / "out")


def test_a_field_that_is_new_since_a_run_was_made_had_its_default(
    config: SweepConfig, trained: list[TrainConfig], tmp_path: Path
):
    sweep(config, tmp_path / "out")
    for file in (tmp_path / "out" / "runs").glob("*/settings.json"):
        settings = json.loads(file.read_text())
        del settings["train"]["remat"], settings["train"]["label_smoothing"]
        file.write_text(json.dumps(settings))
    trained.clear()
    sweep(config, tmp_path / "out")
    assert trained == []
    with pytest.raises(InputError, match=r"label_smoothing \(was 0.1, now 0.2\)"):
        sweep(dataclasses.replace(config, train=config.train | {"label_smoothing": 0.2}), tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(config: SweepConfig, trained: list[TrainConfig], tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"out: holds other files \(results.jsonl\) and no sweep"):
        sweep(config, tmp_path / "out")
    with pytest.raises(InputError, match=r"study.toml: is a file; name a folder"):
        sweep(config, tmp_path / "study.toml")
    assert trained == [] and (tmp_path / "out" / "results.jsonl").read_text() == "mine"


def test_a_run_that_fails_is_tried_three_times_in_an_empty_folder_and_marked(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    run = "w12-e1-lr0.8-s0"
    tries = fails(monkeypatch, run, OSError("no data"), InputError("no data"), RuntimeError("still no data"))
    result = sweep(config, tmp_path / "out")
    assert tries.count(run) == 3 and len(tries) == 10
    assert result.left == 0 and result.reasons == {run: "RuntimeError: still no data"}
    rows = {row["run"]: row for row in results(tmp_path / "out")}
    assert (rows[run]["status"], rows[run]["loss"], rows[run]["top1"], rows[run]["final"]) == ("failed",) + (
        None,
    ) * 2 + (True,)
    assert len(rows) == 8 and [row["status"] for row in rows.values()].count("done") == 7
    assert len(read_points(result.file)) == 8  # what is not known of it is no 0, which no reader would take

    noted = json.loads((tmp_path / "out" / "runs" / run / "failures.json").read_text())
    assert noted["reasons"][:2] == ["OSError: no data", "InputError: no data"]
    assert "Traceback" in noted["last"][0] and "still no data" in noted["last"][-1]

    # It stays failed until it is asked for.
    sweep(config, tmp_path / "out")
    assert len(tries) == 10
    for name in ("result.json", "failures.json"):
        (tmp_path / "out" / "runs" / run / name).unlink()
    sweep(config, tmp_path / "out")
    assert len(tries) == 11 and {row["status"] for row in results(tmp_path / "out")} == {"done"}


def test_a_run_that_fails_once_is_not_marked_and_a_killed_worker_is_no_failure(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    run = "w12-e1-lr0.8-s0"
    fails(monkeypatch, run, RuntimeError("once"), RuntimeError("twice"))
    assert sweep(config, tmp_path / "out").reasons == {}
    for _ in range(4):
        tries = fails(monkeypatch, run, KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            sweep(config, tmp_path / "other")
        assert tries[-1] == run
        (tmp_path / "other" / "runs" / run / "train" / "half").unlink()
        (tmp_path / "other" / "runs" / run / "train").rmdir()
    fails(monkeypatch, run)
    sweep(config, tmp_path / "other")
    assert results(tmp_path / "out") == results(tmp_path / "other")


def test_a_run_that_diverges_is_a_result_by_its_type_whatever_the_message(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    run = "w8-e2-lr0.8-s0"
    tries = fails(monkeypatch, run, Diverged("...", 3))
    result = sweep(config, tmp_path / "out")
    assert tries.count(run) == 1 and result.reasons == {run: "..."}
    row = next(row for row in results(tmp_path / "out") if row["run"] == run)
    assert (row["status"], row["images"], row["epochs"], row["loss"], row["final"]) == ("diverged", 48, 2, None, True)

    def no_number(config: TrainConfig, **others: object) -> Result:
        return dataclasses.replace(ends_well(config), evaluation=evaluation(np.inf))

    monkeypatch.setattr(_sweep, "train", no_number)
    sweep(config, tmp_path / "all")
    assert {row["status"] for row in results(tmp_path / "all")} == {"diverged"}


def test_a_sweep_that_is_stopped_says_what_is_left(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    came = threading.Event()

    def train(config: TrainConfig, stop: Callable[[], bool], **others: object) -> Result:
        assert not stop()
        if config.out.parent.name == "w8-e2-lr0.4-s0":
            came.set()
        if stop():
            return Result(step=2, total_steps=8, evaluation=None, checkpoint=None)
        return ends_well(config, **others)

    monkeypatch.setattr(_sweep, "train", train)
    result = sweep(config, tmp_path / "out", stop=came.is_set)
    assert result.left == 8 - len(results(tmp_path / "out")) and 0 < result.left < 8
    assert not list((tmp_path / "out").rglob("run.lock"))
    came.clear()
    monkeypatch.setattr(_sweep, "train", ends_well)
    assert sweep(config, tmp_path / "out").left == 0


def test_what_a_dead_worker_had_is_taken_over_and_what_a_living_one_has_is_waited_for(
    config: SweepConfig, trained: list[TrainConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(_sweep, "_POLL_SECONDS", 0.01)
    dead, living = (tmp_path / "out" / "runs" / run for run in ("w8-e1-lr0.4-s0", "w12-e2-lr0.4-s0"))
    for folder in (dead, living):
        folder.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = _lock._place() | {"process": gone.pid, "token": "t", "since": "today"}
    (dead / "run.lock").write_text(json.dumps(owner))
    (living / "run.lock").write_text(json.dumps(owner | {"process": os.getppid()}))

    seen: list[int] = []

    def stop() -> bool:  # asked while it waits; by then all others have been made
        if len(trained) == 7:
            seen.append(1)
            if len(seen) == 5:
                (living / "run.lock").unlink()
        return False

    assert sweep(config, tmp_path / "out", stop=stop).left == 0
    assert [run.out.parent for run in trained].index(dead) == 0 and trained[-1].out.parent == living
    assert len(trained) == 8 and len(seen) >= 5


def test_a_training_folder_that_another_machine_s_dead_worker_had_is_no_failure(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(_sweep, "_POLL_SECONDS", 0.01)
    tries = fails(monkeypatch, "w8-e1-lr0.4-s0", Locked("for three minutes"))
    real = _sweep.train

    def train(config: TrainConfig, **others: object) -> Result:
        if (config.out / "half").exists():
            (config.out / "half").unlink()
            config.out.rmdir()
        return real(config, **others)

    monkeypatch.setattr(_sweep, "train", train)
    result = sweep(config, tmp_path / "out")
    assert result.reasons == {} and tries.count("w8-e1-lr0.4-s0") == 2
    assert not list((tmp_path / "out").rglob("failures.json"))


def test_two_workers_never_make_the_same_run(config: SweepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(_sweep, "_POLL_SECONDS", 0.01)
    made: list[str] = []

    def train(config: TrainConfig, **others: object) -> Result:
        made.append(config.out.parent.name)
        return ends_well(config, **others)

    monkeypatch.setattr(_sweep, "train", train)
    workers = [threading.Thread(target=sweep, args=(config, tmp_path / "out")) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(made) == sorted(run.id for run in plan_sweep(config).runs)
    sweep(config, tmp_path / "alone")
    assert results(tmp_path / "out") == results(tmp_path / "alone")


def test_a_result_that_comes_while_the_file_is_written_is_not_lost(
    config: SweepConfig, trained: list[TrainConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    out = tmp_path / "out"
    sweep(config, out)
    before = (out / "results.jsonl").read_bytes()
    late = out / "runs" / "w8-e2-lr0.8-s0" / "result.json"
    late.rename(tmp_path / "late.json")
    real = _results.replacing

    def replacing(path: Path):
        if path.name == "results.jsonl" and not late.exists():
            (tmp_path / "late.json").rename(late)
        return real(path)

    monkeypatch.setattr(_results, "replacing", replacing)
    _results.Folder(out).write_results()
    assert (out / "results.jsonl").read_bytes() == before


def test_a_damaged_result_is_named(config: SweepConfig, trained: list[TrainConfig], tmp_path: Path):
    sweep(config, tmp_path / "out")
    file = tmp_path / "out" / "runs" / "w8-e2-lr0.8-s0" / "result.json"
    file.write_text('{"rows": []}')
    with pytest.raises(InputError, match=r"w8-e2-lr0.8-s0/result.json: is not the result of a run; delete it"):
        sweep(config, tmp_path / "out")


def test_what_a_worker_left_that_was_killed_behind_the_result_goes(
    config: SweepConfig, trained: list[TrainConfig], tmp_path: Path
):
    sweep(config, tmp_path / "out")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    folder = tmp_path / "out" / "runs" / "w8-e1-lr0.4-s0"
    (folder / "train" / "checkpoints" / "4").mkdir(parents=True)
    (folder / "run.lock").write_text(json.dumps(_lock._place() | {"process": os.getpid(), "token": "t"}))
    sweep(config, tmp_path / "out")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (folder / "train" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": Path("nowhere")}, r"model w8: nowhere: does not exist"),
        ({"train": {"batch_size": 12}}, r"model w8: batch_size \(=12\) must be a multiple of 8, for 8 devices; use 8"),
        ({"train": {"num_classes": 1}}, r"model w8: num_classes \(=1\) is less than the 2 classes"),
    ],
)
def test_what_no_run_can_be_made_of_is_refused_before_the_first(
    change: dict[str, object], message: str, config: SweepConfig, trained: list[TrainConfig], tmp_path: Path
):
    with pytest.raises(InputError, match=message):
        sweep(dataclasses.replace(config, **change), tmp_path / "out")
    assert trained == [] and not (tmp_path / "out").exists()
