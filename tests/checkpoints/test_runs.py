"""A run's folder as a checkpoint: which path means what, and that its record is read with suspicion."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import exported_by, load_run, read_run, run_of, saved_steps
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import get_config
from nfnet_eqx.zoo import from_pretrained

ROOT = Path(__file__).resolve().parents[2]

NETWORK = get_config("dm_nfnet_f0")
RECORD: dict[str, Any] = {
    "recipe": "finetune",
    "config": {"seed": 0},
    "architecture": "dm_nfnet_f0",
    "base_model": None,
    "network": NETWORK.to_dict() | {"num_classes": 3},
    "preprocess": Preprocess(input_size=(32, 32)).to_timm() | {"resize": "deepmind"},
    "labels": ["cat", "dog", "fox"],
    "class_indices": [0, 1, 2],
    "data": {"pictures": 9, "classes": ["cat", "dog", "fox"]},
    "versions": {},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    for step in (6, 12, 100):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    (tmp_path / "checkpoints" / "18.orbax-checkpoint-tmp").mkdir()
    return tmp_path


def test_which_run_a_path_belongs_to(run: Path, monkeypatch: pytest.MonkeyPatch):
    for path in (run, run / "checkpoints", run / "checkpoints" / "12"):
        assert run_of(path) == run
    for path in (run.parent, run / "run.json", run / "checkpoints" / "18.orbax-checkpoint-tmp", run / "nowhere"):
        assert run_of(path) is None
    monkeypatch.chdir(run / "checkpoints" / "12")
    assert run_of(".") == run and run_of("..") == run
    assert saved_steps(run) == [6, 12, 100] and saved_steps(run.parent) == []


def test_a_run_that_exported_nothing_names_its_states(run: Path):
    for path, what in ((run, "exported no checkpoint yet"), (run / "checkpoints", "holds the states of a run")):
        with pytest.raises(InputError, match=f"{what}.*: {run}/checkpoints/6, {run}/checkpoints/12, "):
            exported_by(path)
        with pytest.raises(InputError, match=what):
            from_pretrained(path)
    assert exported_by(run / "checkpoints" / "12") == run / "checkpoints" / "12"
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "config.json").write_text("{}")
    assert exported_by(run) == run / "checkpoint" and exported_by(run / "checkpoint") == run / "checkpoint"


def test_a_state_without_its_files_is_one_line_that_names_it(run: Path):
    with pytest.raises(InputError, match=rf"^{run}/checkpoints/12: cannot be read: .*open another state") as error:
        load_run(run / "checkpoints" / "12")
    assert "\n" not in str(error.value)


def test_the_record_says_what_is_trained(run: Path):
    found = read_run(run)
    assert (found.architecture, found.labels, found.base_model) == ("dm_nfnet_f0", ("cat", "dog", "fox"), None)
    assert found.network.num_classes == 3
    assert found.preprocess == Preprocess(input_size=(32, 32), resize="deepmind")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["cat"]}, "1 labels for 3 classes"),
        ({"labels": ["cat", "dog", "\t"]}, "plain text"),
        ({"network": {}}, "NFNetConfig: 'depths' is missing"),
        ({"preprocess": {"mean": "x"}}, "mean"),
        ({"architecture": 7, "recipe": None}, "architecture is a int, recipe is a NoneType"),
        ({"class_indices": ["0", 1, 2]}, "class_indices are no numbers"),
        ({"class_indices": [0, 1]}, "class_indices are 2, for 3 classes"),
        ({"data": {"classes": [1, 2, 3]}}, "data.classes are no names"),
    ],
)
def test_a_record_that_cannot_be_is_refused_with_its_file(change: dict[str, Any], message: str, run: Path):
    (run / "run.json").write_text(json.dumps(RECORD | change))
    with pytest.raises(InputError, match=f"^{run}/run.json: .*{message}"):
        read_run(run)


PATHS = [(key,) for key in RECORD] + [("network", key) for key in RECORD["network"]] + [
    ("preprocess", key) for key in RECORD["preprocess"]
] + [("data", "classes"), ("data", "pictures")]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(path=st.sampled_from(PATHS), value=VALUES, gone=st.booleans())
def test_any_other_value_is_read_or_refused_and_nothing_else(
    path: tuple[str, ...], value: Any, gone: bool, tmp_path_factory: pytest.TempPathFactory
):
    record = copy.deepcopy(RECORD)
    at = record if len(path) == 1 else record[path[0]]
    if gone:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_text(json.dumps(record))
    try:
        read_run(folder)
    except InputError as error:
        assert str(error).startswith(str(folder / "run.json"))


def test_what_is_imported_gives_the_programs_root_logger_no_handler():
    code = "import logging, nfnet_eqx.train, nfnet_eqx._orbax; print(logging.root.handlers)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr
