"""The folder of a run: whose it is, when it may be had for something else, and that nobody waits for ever."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import read_run
from nfnet_eqx.data import open_source
from nfnet_eqx.train import TrainConfig
from nfnet_eqx.train import _run as module
from nfnet_eqx.train._run import check_same, find_run, holding, on_first_process, resumed_start, run_settings
from nfnet_eqx.train._start import find_start

Changed = Callable[..., TrainConfig]


def settings_of(config: TrainConfig) -> dict:
    source = open_source(config.data, "train")
    return run_settings(config, "test", find_start(config, 4, source.classes)[0], source)


def test_a_folder_whose_run_has_saved_nothing_is_free_for_other_settings(config: TrainConfig, changed: Changed):
    other = changed(config, seed=1)
    for settings in (settings_of(config), settings_of(other)):
        with holding(config.out, settings, bytes_needed=0):
            pass
        assert find_run(config.out) is None
    assert json.loads((config.out / "run.json").read_text())["config"]["seed"] == 1

    (config.out / "checkpoints" / "6").mkdir(parents=True)  # now it has
    run = find_run(config.out)
    assert run is not None
    check_same(config.out, run, settings_of(other))
    with pytest.raises(InputError, match=r"other settings: seed \(was 1, now 0\); choose another folder"):
        check_same(config.out, run, settings_of(config))
    with holding(config.out, settings_of(config), bytes_needed=0):
        assert read_run(config.out).settings["config"]["seed"] == 1


def test_what_a_run_started_from_is_read_from_its_record_alone(config: TrainConfig):
    source = open_source(config.data, "train")
    start, _ = find_start(config, 4, source.classes)
    with holding(config.out, run_settings(config, "test", start, source), bytes_needed=0):
        assert resumed_start(read_run(config.out)) == start


@pytest.mark.parametrize("litter", [".DS_Store", "Thumbs.db"])
def test_what_a_file_manager_leaves_does_not_make_a_folder_somebodys(litter: str, config: TrainConfig):
    config.out.mkdir()
    (config.out / litter).write_bytes(b"")
    with holding(config.out, settings_of(config), bytes_needed=0):
        assert (config.out / "run.json").exists()


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
