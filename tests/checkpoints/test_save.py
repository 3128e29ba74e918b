"""Saving: a folder changes in one step, its two files name each other, and what a killed process left is removed."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_eqx import NFNet, NFNetConfig, Preprocess, from_pretrained, named_parameters, save_pretrained
from nfnet_eqx import _files as files
from nfnet_eqx._errors import InputError
from nfnet_eqx._files import replacing_folder
from nfnet_eqx.checkpoints import PARTS, Checkpoint, History, LazyArray, _save, write_verified
from nfnet_eqx.models import skeleton

ROOT = Path(__file__).resolve().parents[2]
CONFIG = NFNetConfig(
    depths=(1,), widths=(16,), stem_widths=(8,), stem_strides=(2,), stage_strides=(2,), group_size=8, num_classes=3
)


def checkpoint(number: int) -> Checkpoint:
    """Its number is in its config (a mean), and in its weights."""
    model = NFNet(CONFIG, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: m.head.fc.bias, model, jnp.full(3, float(number)))
    return Checkpoint(model=model, preprocess=Preprocess(input_size=(32, 32), mean=(number, 0, 0)), architecture="t")


def number_of(folder: Path) -> int:
    """The number of what opens, which is the same in both files."""
    ckpt = from_pretrained(folder)
    numbers = {float(ckpt.preprocess.mean[0]), *np.asarray(ckpt.model.head.fc.bias).tolist()}
    assert len(numbers) == 1, f"config and weights of two checkpoints: {numbers}"
    return int(numbers.pop())


# Saves one checkpoint after the other over a folder that it is told, until it is told another or nothing.
WRITER = """
    import itertools, select, sys
    from tests.checkpoints.test_save import checkpoint
    from nfnet_eqx.checkpoints import History, save_pretrained, write_verified

    checkpoints = itertools.cycle([checkpoint(1), checkpoint(2)])
    print("ready", flush=True)
    kind, _, folder = "", "", ""
    while True:
        if not folder or select.select([sys.stdin], [], [], 0)[0]:
            kind, _, folder = sys.stdin.readline().strip().partition(" ")
            print("said", flush=True)
        elif kind == "verified":
            write_verified(next(checkpoints), folder, History())
        else:
            save_pretrained(next(checkpoints), folder)
"""


class Writer:
    """A process that writes checkpoints."""

    def __init__(self) -> None:
        env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", textwrap.dedent(WRITER)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.hears("ready")

    def hears(self, word: str) -> None:
        assert self.process.stdout and self.process.stdout.readline() == f"{word}\n", "the writer failed"

    @contextlib.contextmanager
    def writing(self, folder: Path, kind: str = "plain") -> Iterator[None]:
        assert self.process.stdin
        for line in (f"{kind} {folder}\n", "\n"):
            self.process.stdin.write(line)
            self.process.stdin.flush()
            self.hears("said")
            if line != "\n":
                yield

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The folder as the process would leave it if it were killed now."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    found = Writer()
    yield found
    found.process.kill()
    found.process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pretrained(checkpoint(1), tmp_path / "ckpt")
    return tmp_path / "ckpt"


# --- one step ---


@pytest.mark.parametrize("other_files", [False, True], ids=["exchanged", "with a stranger's file"])
def test_a_process_killed_at_any_moment_leaves_a_whole_checkpoint_or_one_that_says_it_is_not(
    other_files: bool, folder: Path, writer: Writer
):
    if other_files:
        (folder / "notes.txt").write_text("mine")
    random, seen = np.random.default_rng(0), []
    with writer.writing(folder):
        for _ in range(15):
            time.sleep(random.uniform(0.001, 0.02))
            with writer.stopped():
                try:
                    seen.append(number_of(folder))
                except InputError as error:
                    assert other_files and "a save was interrupted" in str(error), error
    assert {1, 2} >= set(seen) and seen
    assert not other_files or (folder / "notes.txt").read_text() == "mine"


def test_a_reader_never_fails_while_a_writer_exports_again_and_again(folder: Path, writer: Writer):
    with writer.writing(folder, "verified"):
        assert {number_of(folder) for _ in range(15)} <= {1, 2}


def test_other_files_stay_and_the_card_stays_until_it_is_written(folder: Path):
    (folder / "README.md").write_text("my card")
    save_pretrained(checkpoint(2), folder)
    assert (number_of(folder), (folder / "README.md").read_text()) == (2, "my card")
    (folder / "logs").mkdir()
    (folder / "logs" / "log").write_text("mine")
    write_verified(checkpoint(3), folder, History())
    assert (number_of(folder), (folder / "logs" / "log").read_text()) == (3, "mine")
    assert "my card" not in (folder / "README.md").read_text()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*PARTS, "logs"])


def test_a_link_to_a_folder_is_followed_and_rights_stay(folder: Path):
    folder.chmod(0o750)
    (folder.parent / "link").symlink_to("ckpt")
    save_pretrained(checkpoint(2), folder.parent / "link")
    assert (folder.parent / "link").is_symlink() and number_of(folder) == 2
    assert folder.stat().st_mode & 0o777 == 0o750


def test_the_working_directory_stays_what_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    before = os.stat(".").st_ino
    save_pretrained(checkpoint(2), ".")
    assert os.stat(folder).st_ino == before and number_of(Path(".")) == 2
    assert sorted(os.listdir(".")) == ["config.json", "model.safetensors"]


def test_where_a_file_system_cannot_exchange_the_files_take_their_places(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def cannot(*_: Path) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(files, "exchange", cannot)
    save_pretrained(checkpoint(2), folder)
    assert number_of(folder) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["ckpt"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_of_two_writers_of_a_new_folder_the_second_is_told(folder: Path):
    with pytest.raises(InputError, match=f"^{folder}: exists by now; remove it or choose another"):
        write_verified(checkpoint(2), folder, History(), overwrite=False)
    assert number_of(folder) == 1 and [path.name for path in folder.parent.iterdir()] == ["ckpt"]


# --- what killed processes leave ---


def test_what_a_killed_process_left_is_removed_and_nothing_else(folder: Path):
    old = time.time() - 3600
    left, mine, young = (folder.parent / f".ckpt.{name}.tmp" for name in ("01234567", "mine", "89abcdef"))
    for path in (left, mine, young):
        path.mkdir()
        (path / "ckpt").mkdir()
    (folder.parent / ".ckpt.00000000.tmp").write_text("a file, as older versions left them")
    with replacing_folder(folder, PARTS) as living:
        for path in (left, mine, living.parent, folder.parent / ".ckpt.00000000.tmp"):
            os.utime(path, (old, old))
        save_pretrained(checkpoint(2), folder)
        assert sorted(folder.parent.iterdir()) == sorted([folder, living.parent, mine, young])
        (living / "config.json").write_text("{}")
    assert sorted(folder.parent.iterdir()) == sorted([folder, mine, young])


# --- the two files name each other ---


def test_the_config_names_its_weights_and_no_others_open_under_it(folder: Path):
    save_pretrained(checkpoint(2), folder.parent / "other")
    settings = json.loads((folder / "config.json").read_text())
    assert settings["nfnet_eqx"]["sha256"] == {
        "model.safetensors": from_pretrained(folder).source.sha256["model.safetensors"]
    }
    shutil.copy(folder.parent / "other" / "model.safetensors", folder)
    with pytest.raises(InputError, match=r"model\.safetensors: is not the file that config\.json .*interrupted"):
        from_pretrained(folder)
    del settings["nfnet_eqx"]["sha256"]  # as older checkpoints are
    (folder / "config.json").write_text(json.dumps(settings))
    assert np.asarray(from_pretrained(folder).model.head.fc.bias).tolist() == [2, 2, 2]


@pytest.mark.parametrize("named", [[], "abc", {"model.safetensors": 3}])
def test_impossible_digests_are_refused(named: object, folder: Path):
    settings = json.loads((folder / "config.json").read_text())
    settings["nfnet_eqx"]["sha256"] = named
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=rf"config\.json: nfnet_eqx\.sha256 must be .*{re.escape(repr(named))}"):
        from_pretrained(folder)


# --- what is given ---


def test_a_bare_network_is_told_how_to_become_a_checkpoint(tmp_path: Path):
    with pytest.raises(InputError, match=r"of type NFNet; .*Checkpoint\(model=model, preprocess=Preprocess\("):
        # What the tests' own checks of types do not let through.
        _save._check(checkpoint(1).model, tmp_path / "ckpt")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: is a file"):
        save_pretrained(checkpoint(1), tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_arrays_are_made_one_at_a_time_to_be_written_and_to_be_compared(tmp_path: Path):
    ckpt, made = checkpoint(4), []

    def lazy(name: str, array: np.ndarray) -> LazyArray:
        return LazyArray(array.shape, array.dtype, lambda: made.append(name) or array)

    tensors = {name: lazy(name, np.asarray(array)) for name, array in named_parameters(ckpt.model).items()}
    bare = dataclasses.replace(ckpt, model=skeleton(ckpt.config))
    write_verified(bare, tmp_path / "ckpt", History(), tensors=tensors)
    assert number_of(tmp_path / "ckpt") == 4
    assert sorted(made) == sorted([*tensors, *tensors])


def test_a_card_of_other_weights_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_verified(checkpoint(1), tmp_path / "x", History(results={"top1": 99.0}))
    save_pretrained(checkpoint(2), tmp_path / "x")
    assert "99.00" in (tmp_path / "x" / "README.md").read_text()
    assert "README.md: tells of the weights that were there before" in caplog.text
