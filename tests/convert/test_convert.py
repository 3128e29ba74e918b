"""`nfnet_eqx.convert.convert`: the conversion as a call, in a small memory, beside other processes."""

import dataclasses
import os
import pickle
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from nfnet_eqx import from_pretrained, get_config, named_parameters
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Checkpoint
from nfnet_eqx.checkpoints._tensors import read_safetensors
from nfnet_eqx.convert import _convert, convert, native_to_deepmind, read_deepmind
from nfnet_eqx.convert._haiku_names import entries
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import init_network

T0 = Path(__file__).resolve().parents[1] / "data" / "deepmind" / "T0_dill0.3.3_p3.npz"
FILES = ["README.md", "config.json", "model.safetensors"]


def test_a_file_an_open_checkpoint_and_a_folder_convert_to_the_same_bytes(tmp_path: Path):
    made = convert(T0, tmp_path / "file", numerics="timm")
    assert (made.path, made.architecture, made.config.numerics) == (tmp_path / "file", "dm_nfnet", "timm")
    assert (made.parameters, made.conversion.numerics, str(made.conversion.source)) == (443_199, "deepmind", str(T0))
    assert 0 < made.conversion.difference < 5e-7
    ckpt = from_pretrained(T0)
    convert(ckpt, tmp_path / "open", numerics="timm")
    convert(T0, tmp_path / "between")
    convert(str(tmp_path / "between"), tmp_path / "folder", numerics="timm")
    expected = (tmp_path / "file" / "model.safetensors").read_bytes()
    for name in ("open", "folder"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == expected, name
    npz = convert(tmp_path / "between", tmp_path / "back.npz")
    assert npz.conversion.finding == "compared all 114 tensors to the bit: no difference"
    back = read_deepmind(tmp_path / "back.npz")
    for module, leaves in read_deepmind(T0).items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(back[module][name], leaf, strict=True)


def test_half_precision_becomes_float32(tmp_path: Path):
    ckpt = from_pretrained(T0, dtype="float16")
    convert(ckpt, tmp_path / "half")
    saved = read_safetensors(tmp_path / "half" / "model.safetensors")
    for name, array in named_parameters(ckpt.model).items():
        np.testing.assert_array_equal(saved[name], np.asarray(array, np.float32), strict=True)


@pytest.mark.parametrize("numerics", [None, pytest.param("timm", marks=pytest.mark.slow)])
def test_a_conversion_needs_memory_for_a_few_tensors_only(numerics: Any, tmp_path: Path):
    config = dataclasses.replace(
        get_config("dm_nfnet_f0"), depths=(1, 2, 2, 1), widths=(256, 512, 512, 512), num_features=1024, num_classes=100
    )
    tensors = {e.native: np.full(e.native_shape(), 0.5, np.float32) for e in entries(config)}
    for name, tensor in tensors.items():
        if name.endswith("weight"):
            tensor.reshape(-1)[::7] = -1.0
    (tmp_path / "big.npz").write_bytes(pickle.dumps(native_to_deepmind(config, tensors), protocol=3))
    size = (tmp_path / "big.npz").stat().st_size
    tracemalloc.start()
    try:
        convert(tmp_path / "big.npz", tmp_path / "big", numerics=numerics)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 2, f"{peak:,} bytes for a file of {size:,}"
    saved = read_safetensors(tmp_path / "big" / "model.safetensors")
    for name, tensor in tensors.items():
        if numerics is None or not name.endswith("gain"):
            np.testing.assert_array_equal(saved[name], tensor, err_msg=name)


def test_of_two_conversions_to_one_folder_the_slower_is_told_that_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    barrier, real, told = threading.Barrier(2, timeout=30), _convert._for_numerics, []

    def both_at_once(*arguments: Any) -> Any:
        barrier.wait()
        return real(*arguments)

    def run(target: Path) -> None:
        try:
            convert(T0, target)
        except InputError as error:
            told.append(str(error))

    monkeypatch.setattr(_convert, "_for_numerics", both_at_once)
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "new", tmp_path / "empty", tmp_path / "new.npz"):
        threads = [threading.Thread(target=run, args=(target,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 1 and f"{target}: exists by now; remove it or choose another destination" in told.pop()
        assert target.suffix or sorted(os.listdir(target)) == FILES
    assert sorted(os.listdir(tmp_path)) == ["empty", "new", "new.npz"]


def test_a_vit_has_one_function_and_no_file_of_deepminds(tmp_path: Path):
    config = dataclasses.replace(get_config("vit_micro_patch4_32"), width=8, depth=1, heads=2, mlp_width=8)
    model = init_network(config, key=jax.random.key(0))
    ckpt = Checkpoint(model=model, preprocess=Preprocess(), architecture="vit_micro_patch4_32")
    with pytest.raises(InputError, match="DeepMind's files hold NFNets, not a ViT; convert it to a folder instead"):
        convert(ckpt, tmp_path / "vit.npz")
    with pytest.raises(InputError, match="a ViT has one function, 'timm'; leave numerics out"):
        convert(ckpt, tmp_path / "vit", numerics="deepmind")
    assert not os.listdir(tmp_path)


def test_a_link_to_an_empty_folder_and_the_working_directory_are_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("real", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("real")
    convert(T0, tmp_path / "link")
    monkeypatch.chdir(tmp_path / "here")
    convert(T0, ".")
    assert sorted(os.listdir(".")) == sorted(os.listdir(tmp_path / "here")) == FILES
    assert (tmp_path / "link").is_symlink() and sorted(os.listdir(tmp_path / "real")) == FILES
    assert sorted(os.listdir(tmp_path)) == ["here", "link", "real"]
