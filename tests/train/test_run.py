"""The folder of a run: whose it is, when it may be had for something else, and that nobody waits for ever."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import read_run
from nfnet_eqx.data import open_source
from nfnet_eqx.train import TrainConfig, train
from nfnet_eqx.train import _loop as loop
from nfnet_eqx.train import _run as module
from nfnet_eqx.train._prepare import prepare
from nfnet_eqx.train._run import check_same, find_run, holding, on_first_process, resumed_start, run_settings
from nfnet_eqx.train._start import find_start

Changed = Callable[..., TrainConfig]


def settings_of(config: TrainConfig) -> dict:
    source = open_source(config.data, "train")
    return run_settings(config, "test", find_start(config, 4, source.classes)[0], source)


def test_a_folder_whose_run_has_saved_nothing_is_free_for_other_settings(config: TrainConfig, changed: Changed):
    other = changed(config, seed=1)
    for settings in (settings_of(config), settings_of(other)):
        with holding(config.out, settings, found=None, bytes_needed=0):
            pass
        assert find_run(config.out) is None
    assert json.loads((config.out / "run.json").read_text())["config"]["seed"] == 1

    (config.out / "checkpoints" / "6").mkdir(parents=True)  # now it has
    run = find_run(config.out)
    assert run is not None
    check_same(config.out, run, settings_of(other))
    with pytest.raises(InputError, match=r"other settings: seed \(was 1, now 0\); choose another folder"):
        check_same(config.out, run, settings_of(config))
    with holding(config.out, settings_of(config), found=run, bytes_needed=0):
        assert read_run(config.out).settings["config"]["seed"] == 1


def test_what_a_run_started_from_is_read_from_its_record_alone(config: TrainConfig):
    source = open_source(config.data, "train")
    start, _ = find_start(config, 4, source.classes)
    with holding(config.out, run_settings(config, "test", start, source), found=None, bytes_needed=0):
        assert resumed_start(read_run(config.out)) == start


def test_a_run_begun_before_a_setting_existed_is_resumed_with_what_was_done_then(config: TrainConfig, changed: Changed):
    settings = settings_of(config)
    for name in ("loss", "head_bias"):
        del settings["config"][name]
    for name in ("kind", "schedule", "cooldown", "beta2", "head_weight_decay", "clip_norm"):
        del settings["config"]["optimizer"][name]
    with holding(config.out, settings, found=None, bytes_needed=0):
        (config.out / "checkpoints" / "6").mkdir(parents=True)
    run = find_run(config.out)
    assert run is not None
    check_same(config.out, run, settings_of(config))
    with pytest.raises(
        InputError, match=r"other settings: loss \(was softmax, now sigmoid\), optimizer.kind \(was sgd, "
    ):
        check_same(config.out, run, settings_of(changed(config, kind="adamw", loss="sigmoid")))


@pytest.mark.parametrize("litter", [".DS_Store", "Thumbs.db"])
def test_what_a_file_manager_leaves_does_not_make_a_folder_somebodys(litter: str, config: TrainConfig):
    config.out.mkdir()
    (config.out / litter).write_bytes(b"")
    with holding(config.out, settings_of(config), found=None, bytes_needed=0):
        assert (config.out / "run.json").exists()


def test_a_run_that_was_killed_before_it_had_a_record_is_not_refused_its_folder(config: TrainConfig):
    code = (
        "import os, sys; from pathlib import Path; from nfnet_eqx._files import replacing; "
        "from nfnet_eqx.train._lock import locked; out = Path(sys.argv[1])\n"
        "with locked(out), replacing(out / 'run.json'): os._exit(9)"
    )
    config.out.mkdir()
    assert subprocess.run([sys.executable, "-c", code, str(config.out)], check=False).returncode == 9
    (config.out / ".run.lock.0123abcd").write_bytes(b"")
    assert len(list(config.out.iterdir())) == 3
    with holding(config.out, settings_of(config), found=None, bytes_needed=0):
        assert (config.out / "run.json").exists()


def test_a_run_that_came_and_went_after_the_folder_was_looked_at_is_not_resumed_under_other_settings(
    config: TrainConfig, changed: Changed, monkeypatch: pytest.MonkeyPatch
):
    def prepare_slowly(*args):
        prepared = prepare(*args)
        with holding(config.out, settings_of(changed(config, seed=1)), found=None, bytes_needed=0):
            (config.out / "checkpoints" / "6").mkdir(parents=True)
        return prepared

    monkeypatch.setattr(loop, "prepare", prepare_slowly)
    with pytest.raises(InputError, match=r"run\): another process has trained there just now; start this run again"):
        train(config)
    assert sorted(path.name for path in config.out.iterdir()) == ["checkpoints", "run.json"]
    assert read_run(config.out).settings["config"]["seed"] == 1


def test_where_several_classes_have_other_names_the_refusal_tells_how_to_rename_them(config: TrainConfig):
    settings = settings_of(config) | {"data": {"pictures": 96, "classes": ["a", "b", "c", "d"]}}
    with holding(config.out, settings, found=None, bytes_needed=0):
        (config.out / "checkpoints" / "6").mkdir(parents=True)
    run = find_run(config.out)
    assert run is not None
    new = settings | {"data": {"pictures": 96, "classes": ["a", "b", "x", "y"]}}
    with pytest.raises(
        InputError, match=r"classes have changed, .* nfnet-eqx convert .*run/checkpoints/STEP OUT --labels FILE$"
    ):
        check_same(config.out, run, new)


@pytest.mark.parametrize("fault", [InputError("the reason"), RuntimeError("a bug"), KeyboardInterrupt()])
def test_whatever_stops_the_first_process_is_told_to_the_others(fault: BaseException, monkeypatch: pytest.MonkeyPatch):
    told = []
    monkeypatch.setattr(module.jax, "process_count", lambda: 2)
    monkeypatch.setattr(module.multihost_utils, "broadcast_one_to_all", lambda value: told.append(int(value)) or value)

    def work() -> None:
        raise fault

    with pytest.raises(type(fault)):
        on_first_process(work)
    on_first_process(lambda: None)
    assert told == [1, 0]

    monkeypatch.setattr(module.jax, "process_index", lambda: 1)
    monkeypatch.setattr(module.multihost_utils, "broadcast_one_to_all", lambda value: 1)
    with pytest.raises(InputError, match="process 0 cannot go on"):
        on_first_process(work)


def test_the_first_process_decides_for_all(monkeypatch: pytest.MonkeyPatch):
    assert module.first_process_says(7) == 7
    monkeypatch.setattr(module.jax, "process_count", lambda: 2)
    monkeypatch.setattr(module.multihost_utils, "broadcast_one_to_all", lambda value: 6)
    assert module.first_process_says(7) == 6


def test_a_run_of_an_older_version_is_refused_with_the_remedy(config: TrainConfig, tmp_path: Path):
    old = {"recipe": "r", "config": {}, "network": {}, "data": {}, "versions": {}}
    config.out.mkdir()
    (config.out / "run.json").write_text(json.dumps(old))
    (config.out / "checkpoints" / "6").mkdir(parents=True)
    with pytest.raises(InputError, match=r"run\.json: was written by an older nfnet-eqx .*finish that run with"):
        find_run(config.out)
