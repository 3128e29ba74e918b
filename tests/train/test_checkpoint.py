"""The states of a run on disk: the last and the best stay, any layout gets them back, and damage is one clear line."""

from contextlib import closing
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._nfnet import NFNet
from nfnet_eqx.train import TrainConfig
from nfnet_eqx.train._checkpoint import Checkpoints
from nfnet_eqx.train._step import Program, TrainState, make_program
from tests.train.tiny import PREPROCESS, TINY


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def program(config: TrainConfig, mesh: Mesh) -> Program:
    return make_program(config, TINY, PREPROCESS, mesh, total_steps=10)


@pytest.fixture
def state(config: TrainConfig) -> TrainState:
    return program(config, mesh_of(2)).start(eqx.filter_jit(NFNet)(TINY, key=jax.random.key(3)))


def test_the_last_ones_and_the_best_stay(state: TrainState, tmp_path: Path):
    known: dict[int, float] = {}
    for first, values in ((1, (10.0, 90.0, 20.0)), (4, (None, 30.0, None))):  # the second time as a run that is resumed
        checkpoints = Checkpoints(tmp_path, keep=2, top1=known)
        for step, top1 in enumerate(values, first):
            checkpoints.save(step, state)
            if top1 is not None:  # known only when the state is saved
                checkpoints.rate(step, top1)
                known[step] = top1
        assert checkpoints.best() == 2
        checkpoints.close()
    assert sorted(int(folder.name) for folder in tmp_path.iterdir() if folder.name.isdigit()) == [2, 5, 6]


@pytest.mark.parametrize(("devices", "fsdp"), [(1, False), (4, False), (8, True)])
def test_it_is_restored_to_the_bit_onto_other_devices_and_layouts(
    config: TrainConfig, changed, state: TrainState, tmp_path: Path, devices: int, fsdp: bool, monkeypatch
):
    monkeypatch.setattr("nfnet_eqx.train._mesh._SMALLEST_SHARDED", 16)
    checkpoints, mesh = Checkpoints(tmp_path, keep=1), mesh_of(devices)
    checkpoints.save(7, state)
    checkpoints.wait()
    other = program(changed(config, fsdp=fsdp), mesh)
    found = checkpoints.restore(7, other.abstract, other.specs, mesh)
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for leaf, saved in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(saved))
        assert leaf.sharding.mesh == mesh
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(found)) == fsdp


def test_what_a_killed_run_left_half_written_is_not_found(state: TrainState, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, state)
    checkpoints.close()
    (tmp_path / "2.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path, keep=3)
    assert checkpoints.latest() == 1
    checkpoints.save(2, state)
    checkpoints.close()
    assert (tmp_path / "2").is_dir()


def test_a_damaged_state_is_one_line_that_names_its_folder(config: TrainConfig, state: TrainState, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(3, state)
    checkpoints.wait()
    for file in (tmp_path / "3" / "params").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(b"")
    same = program(config, mesh_of(2))
    with pytest.raises(InputError, match=r"step 3 cannot be read: .*; delete its folder") as error:
        checkpoints.restore(3, same.abstract, same.specs, mesh_of(2))
    checkpoints.close()
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        # As TensorStore writes it, with longer names.
        (
            ValueError(
                f'RESOURCE_EXHAUSTED: Error writing "stem.conv.gain/0" in database at local file "{"/run" * 80}/":'
                f' Failed writing: "{"/run" * 80}/d/e7": Failed to write 11207 bytes to file 7: Disk quota exceeded '
                "[os_error_code='122']"
            ),
            "Disk quota exceeded",
        ),
        (OSError(28, "No space left on device"), r"\[Errno 28\] No space left on device"),
        (OSError("first\nsecond"), "first second"),
        (OSError(), "OSError"),
    ],
    ids=["of TensorStore", "of the system", "two lines", "empty"],
)
def test_why_a_save_failed_is_told_however_long_the_names_before_it(error: Exception, reason: str, tmp_path: Path):
    with (
        closing(Checkpoints(tmp_path, keep=1)) as checkpoints,
        pytest.raises(InputError, match=f"^{tmp_path}: cannot be written: {reason}; make room$"),
        checkpoints._explained("cannot be written", "make room"),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("a barrier"), KeyError("step"), TypeError("a leaf"), ValueError("no")])
def test_what_no_file_system_says_is_not_told_as_the_users_fault(error: Exception, tmp_path: Path):
    with (
        closing(Checkpoints(tmp_path, keep=1)) as checkpoints,
        pytest.raises(type(error)) as raised,
        checkpoints._explained("cannot be written", "make room"),
    ):
        raise error
    assert raised.value is error


def test_how_many_images_were_broken_is_saved_with_the_state(state: TrainState, tmp_path: Path):
    with closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        checkpoints.save(1, state, broken=3)
        checkpoints.save(2, state)
        checkpoints.wait()
        assert (checkpoints.broken(1), checkpoints.broken(2)) == (3, 0)


def test_the_seconds_of_training_are_saved_with_the_state_to_the_last_digit(state: TrainState, tmp_path: Path):
    with closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        checkpoints.save(1, state, seconds=0.1 + 0.2)
        checkpoints.save(2, state)
        checkpoints.wait()
    with closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        assert (checkpoints.seconds(1), checkpoints.seconds(2)) == (0.1 + 0.2, None)


def test_the_network_alone_is_restored_with_its_averaged_parameters(
    config: TrainConfig, state: TrainState, tmp_path: Path
):
    state = TrainState(state.step, state.params, jax.tree.map(lambda leaf: leaf + 1, state.params), state.opt_state)
    same = program(config, mesh_of(2))
    with closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints.save(4, state)
        checkpoints.wait()
        found = checkpoints.restore_network(4, same.abstract, same.specs, mesh_of(2))
    for leaf, saved in zip(jax.tree.leaves(found), jax.tree.leaves(state.ema), strict=True):
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(saved))
