"""`nfnet-eqx convert`: between DeepMind's files, native folders, and the two numerics."""

import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfnet_eqx import NFNetConfig, get_config
from nfnet_eqx.checkpoints import Checkpoint, _save, save_pretrained
from nfnet_eqx.checkpoints._tensors import load_tensors, read_safetensors
from nfnet_eqx.cli import main
from nfnet_eqx.convert import _convert
from nfnet_eqx.convert._deepmind import (
    convert_numerics,
    deepmind_to_native,
    native_to_deepmind,
    read_deepmind,
    write_deepmind,
)
from nfnet_eqx.convert._haiku_names import entries
from nfnet_eqx.convert._verify import noise, run
from nfnet_eqx.images._preprocess import Preprocess
from nfnet_eqx.zoo._hub import from_pretrained
from tests.hub_server import Hub
from tests.zoo.repos import TIMM, published

DATA = Path(__file__).resolve().parents[1] / "data"
T0 = DATA / "deepmind" / "T0_dill0.3.3_p3.npz"
T0_PARAMETERS = "443,199 parameters"
FILES = ["README.md", "config.json", "model.safetensors"]
SMALL = dataclasses.replace(
    get_config("dm_nfnet_f0"),
    depths=(1, 1, 1, 1),
    widths=(32, 16, 16, 16),
    stem_widths=(16, 32, 64, 16),
    group_size=8,
    num_features=24,
    num_classes=1000,
)


def random_tensors(config: NFNetConfig) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {entry.native: random.standard_normal(entry.native_shape()).astype(np.float32) for entry in entries(config)}


def convert(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["convert", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["convert", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, out + err
    return err


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_of_deepminds_becomes_a_native_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = convert(T0, tmp_path / "t0", capsys=capsys)
    assert f"dm_nfnet, {T0_PARAMETERS}, numerics=deepmind; timm opens it with its own numerics" in out
    assert out.endswith("; compared all 114 tensors to the bit: no difference\n")
    assert names(tmp_path) == ["t0"] and names(tmp_path / "t0") == FILES
    ckpt = from_pretrained(tmp_path / "t0")
    config, tensors = deepmind_to_native(read_deepmind(T0))
    assert ckpt.config == config
    saved = read_safetensors(tmp_path / "t0" / "model.safetensors")
    assert saved.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(saved[name], tensor, err_msg=name, strict=True)


def test_there_and_back_is_bit_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    convert(T0, tmp_path / "t0", capsys=capsys)
    out = convert(tmp_path / "t0", tmp_path / "back.npz", capsys=capsys)
    assert f"{T0_PARAMETERS}, numerics=deepmind; timm cannot open it; compared all 114 tensors to the bit: no" in out
    assert names(tmp_path) == ["back.npz", "t0"]
    before, after = read_deepmind(T0), read_deepmind(tmp_path / "back.npz")
    assert {m: set(leaves) for m, leaves in after.items()} == {m: set(leaves) for m, leaves in before.items()}
    for module, leaves in before.items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(after[module][name], leaf, err_msg=f"{module} {name}", strict=True)


def test_timms_numerics_are_folded_into_the_gains_and_out_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = convert(T0, tmp_path / "t0", "--numerics", "timm", capsys=capsys)
    found = re.search(
        r"numerics=timm; timm opens it; compared all 114 tensors to the bit, and the standardized weights of all 29 "
        r"convolutions with the original's: they differ by at most (\S+) of their largest value\n$",
        out,
    )
    assert found and 0 < float(found[1]) < 5e-7  # rounding
    # The two forms of GELU are another matter: `verify` measures it.
    assert main(["verify", str(T0), str(tmp_path / "t0"), "--tolerance", "1", "--json"]) == 0
    measured = max(stage["relative"] for stage in json.loads(capsys.readouterr().out)["outputs"])
    assert 0 < measured < 2e-3
    config, tensors = convert_numerics(*deepmind_to_native(read_deepmind(T0)), "timm")
    assert from_pretrained(tmp_path / "t0").config == config
    saved = read_safetensors(tmp_path / "t0" / "model.safetensors")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(saved[name], tensor, err_msg=name, strict=True)
    # DeepMind's files are read with DeepMind's numerics, so that is what they are written for.
    convert(tmp_path / "t0", tmp_path / "back.npz", capsys=capsys)
    written = read_deepmind(tmp_path / "back.npz")
    for module, leaves in read_deepmind(T0).items():
        for name, leaf in leaves.items():
            back = written[module][name]
            np.testing.assert_allclose(back, leaf, rtol=2e-7 if name == "gain" else 0, err_msg=f"{module} {name}")


def test_a_network_with_a_name_gets_its_preprocessing_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_deepmind(tmp_path / "small.npz", native_to_deepmind(SMALL, random_tensors(SMALL)))
    convert(tmp_path / "small.npz", tmp_path / "small", capsys=capsys)
    ckpt = from_pretrained(tmp_path / "small")
    assert ckpt.labels is not None and len(ckpt.labels) == 1000
    assert (ckpt.preprocess.resize, ckpt.preprocess.crop_mode) == ("deepmind", "squash")
    assert (ckpt.preprocess.input_size, ckpt.preprocess.test_input_size) == ((192, 192), (256, 256))
    assert (ckpt.preprocess.crop_pct, ckpt.preprocess.test_crop_pct) == (192 / 224, 256 / 288)
    assert ckpt.config == SMALL


def test_a_network_of_timms_changes_numerics_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = DATA / "timm" / "tiny_dm_nfnet"
    convert(source, tmp_path / "deepmind", "--numerics", "deepmind", "--architecture", "dm_nfnet_f0", capsys=capsys)
    before, after = from_pretrained(source), from_pretrained(tmp_path / "deepmind")
    assert (before.config.numerics, after.config.numerics) == ("timm", "deepmind")
    assert dataclasses.replace(after.config, numerics="timm") == before.config
    picture = noise(before.model, seed=1)
    assert np.abs(run(after.model, picture)["logits"] - run(before.model, picture)["logits"]).max() <= 2e-4


def test_the_card_tells_where_a_folder_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    convert(T0, tmp_path / "t0", capsys=capsys)
    convert(tmp_path / "t0", tmp_path / "timm", "--numerics", "timm", capsys=capsys)
    first, second = ((tmp_path / folder / "README.md").read_text() for folder in ("t0", "timm"))
    assert f" from {T0.name}; its parameters are unchanged.\n" in first
    assert f"| `{T0.name}` | {sha256(T0.read_bytes())} |" in first
    assert "nfnet-eqx compared all 114 tensors to the bit: no difference." in first
    assert " from t0; its gains were multiplied so that timm's numerics compute what deepmind's did.\n" in second
    for name in ("config.json", "model.safetensors"):
        assert f"| `{name}` | {sha256((tmp_path / 't0' / name).read_bytes())} |" in second
    assert "compared all 114 tensors to the bit, and the standardized weights of all 29 convolutions with" in second
    assert str(tmp_path) not in first + second and str(DATA) not in first + second


def test_the_card_of_a_conversion_from_the_hub_names_the_commit(tmp_path: Path):
    target = tmp_path / "converted"
    with Hub(tmp_path / "hub") as hub:
        hub.add(TIMM, published(tmp_path))
        env = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint}
        command = [sys.executable, "-m", "nfnet_eqx", "convert", TIMM, str(target)]
        done = subprocess.run(command, cwd=DATA.parents[1], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        card, digest = (target / "README.md").read_text(), sha256(hub.files(TIMM)["model.safetensors"])
        assert f"\nbase_model: {TIMM}\n" in card and "base_model_relation" not in card
        link = f"[{TIMM}](https://huggingface.co/{TIMM})"
        assert f" from {link}, commit {hub.commit(TIMM)}; its parameters are unchanged.\n" in card
        assert f"| `model.safetensors` | {digest} |" in card


@pytest.mark.parametrize("target", ["t0", "t0.npz"])
def test_a_disk_that_returns_something_else_is_noticed(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def and_then_a_bit_flips(write: Callable[..., Any]) -> Callable[..., Any]:
        def written(path: Path, *arguments: Any) -> Any:
            result = write(path, *arguments)
            if path.suffix == ".npz":
                module, leaves = next(iter(read_deepmind(path).items()))
                changed = {name: leaf + np.float32(1e-3) for name, leaf in leaves.items()}
                write(path, {**read_deepmind(path), module: changed})
            else:
                data = bytearray(path.read_bytes())
                data[-1] ^= 1
                path.write_bytes(data)
            return result

        return written

    for module, name in ((_save, "write_safetensors"), (_convert, "write_deepmind")):
        monkeypatch.setattr(module, name, and_then_a_bit_flips(getattr(module, name)))
    assert main(["convert", str(T0), str(tmp_path / target)]) == 1
    assert f"{tmp_path / target}: was read back with another " in capsys.readouterr().err
    assert names(tmp_path) == []


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_save, "write_card", full)
    assert main(["convert", str(T0), str(tmp_path / "t0")]) == 2
    assert f"{tmp_path / 't0'}: cannot be written: No space left on device; " in capsys.readouterr().err
    assert names(tmp_path) == []


def test_an_empty_folder_is_filled_and_one_in_between_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "t0").mkdir()
    convert(T0, tmp_path / "t0", capsys=capsys)
    convert(tmp_path / "t0", tmp_path / "a" / "b" / "t0", capsys=capsys)
    assert names(tmp_path / "t0") == names(tmp_path / "a" / "b" / "t0") == FILES


def test_nothing_that_exists_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "folder").mkdir()
    for name in ("folder/keep", "file", "file.npz"):
        (tmp_path / name).write_text("mine")
    os.symlink(tmp_path / "nowhere", tmp_path / "link.npz")
    for name in ("folder", "file", "file.npz", "link.npz"):
        assert f"{tmp_path / name}: exists" in refused(T0, tmp_path / name, capsys=capsys)
    for name in ("folder/keep", "file", "file.npz"):
        assert (tmp_path / name).read_text() == "mine"
    assert names(tmp_path) == ["file", "file.npz", "folder", "link.npz"]


def test_bad_input_is_refused_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    class Payload:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "payload.npz").write_bytes(pickle.dumps({"NFNet/~/linear": {"w": Payload()}}))
    (bad / "cut.npz").write_bytes(T0.read_bytes()[:100_000])
    (bad / "empty.npz").write_bytes(b"")
    (bad / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (bad / "folder").mkdir()
    (bad / "checkpoint").mkdir()
    shutil.copy(DATA / "timm" / "tiny_dm_nfnet" / "config.json", bad / "checkpoint")
    (bad / "checkpoint" / "model.safetensors").write_bytes(b"\xff" * 100)
    target = tmp_path / "out" / "target"
    for arguments, named in (
        ([bad / "payload.npz"], "system"),
        ([bad / "cut.npz"], "bytes are claimed at offset"),
        ([bad / "empty.npz"], "is empty"),
        ([bad / "picture.jpg"], "neither a pickle nor an npz"),
        ([bad / "folder"], "holds no model.safetensors"),
        ([bad / "checkpoint"], "header"),
        ([bad / "nothing.npz"], "nothing.npz"),
        ([T0, "--architecture", "dm_nfnet_f1"], "the 437 arrays of dm_nfnet_f1"),
        ([T0, "--architecture", "dm_nfnet_f9"], "unknown architecture 'dm_nfnet_f9'"),
        ([DATA / "timm" / "tiny_dm_nfnet", "--architecture", "dm_nfnet_f1"], "is dm_nfnet_f0, not dm_nfnet_f1"),
    ):
        source, *options = arguments
        message = refused(source, target, *options, capsys=capsys)
        assert named in message, message
    small = dataclasses.replace(from_pretrained(T0), preprocess=Preprocess(input_size=(16, 16)))
    save_pretrained(small, bad / "small")
    message = refused(bad / "small", tmp_path / "target", capsys=capsys)
    assert f"{bad / 'small'}: image_size (=(16, 16)) must be at least 32" in message
    npz = tmp_path / "out" / "target.npz"
    assert "stem_widths" in refused(DATA / "timm" / "tiny_dm_nfnet", npz, capsys=capsys)
    assert "block='regnet'" in refused(DATA / "timm" / "tiny_nf_regnet", npz, capsys=capsys)
    assert "leave out --numerics timm" in refused(T0, npz, "--numerics", "timm", capsys=capsys)
    assert "give a folder" in refused(T0, tmp_path / "out" / "model.safetensors", capsys=capsys)
    assert names(tmp_path) == ["bad"], "something was written, or the payload ran"


def test_a_network_that_timm_cannot_build_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = dataclasses.replace(SMALL, stem_widths=(16, 32, 64, 24))
    model = load_tensors(config, random_tensors(config), source="random")
    ckpt = Checkpoint(model=model, preprocess=Preprocess(), architecture="mine")
    save_pretrained(ckpt, tmp_path / "a")
    out = convert(tmp_path / "a", tmp_path / "b", "--numerics", "timm", capsys=capsys)
    assert "numerics=timm; timm cannot open it; compared " in out


def test_an_unknown_numerics_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main(["convert", str(T0), str(tmp_path / "t0"), "--numerics", "jax"])
    assert exit_.value.code == 2
    assert "numerics" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_as_a_program(tmp_path: Path):
    target = tmp_path / "t0"
    command = [sys.executable, "-m", "nfnet_eqx", "convert", str(T0), str(target)]
    done = subprocess.run(command, cwd=DATA.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {target}: ") and T0_PARAMETERS in done.stdout
    again = subprocess.run(command, cwd=DATA.parents[1], capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"nfnet-eqx: {target}: exists; remove it or choose another destination\n"


def test_a_network_is_exported_under_other_names_of_its_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names, file = [f"class number {i}" for i in range(10)], tmp_path / "names.txt"
    file.write_text("\n".join(names) + "\n", encoding="utf-8")
    convert("nfnet_cifar10", tmp_path / "renamed", "--labels", file, capsys=capsys)
    renamed, original = from_pretrained(tmp_path / "renamed"), from_pretrained("nfnet_cifar10")
    assert renamed.labels == tuple(names) and renamed.config == original.config
    assert "class number 3" in (tmp_path / "renamed" / "README.md").read_text()

    for content, message in ((b"one\ntwo\n", "2 labels for 10 classes"), (b"L\xf6we\n", "is not UTF-8 text")):
        file.write_bytes(content)
        assert main(["convert", "nfnet_cifar10", str(tmp_path / "other"), "--labels", str(file)]) == 2
        error = capsys.readouterr().err
        assert f"nfnet-eqx: {file}: " in error and message in error
    assert not (tmp_path / "other").exists()
