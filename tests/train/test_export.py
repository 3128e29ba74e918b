"""Export: a folder that is whole or not there, holds what was trained to the bit, and never eats another file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_eqx import NFNet, NFNetConfig, Preprocess, fold, from_pretrained, named_parameters
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import _save as module
from nfnet_eqx.train._export import export
from nfnet_eqx.train._mesh import make_mesh, partition_specs, put

CONFIG = NFNetConfig(
    depths=(1,),
    widths=(64,),
    stem_widths=(8,),
    stem_strides=(2,),
    stage_strides=(2,),
    group_size=8,
    num_classes=3,
    numerics="deepmind",
)
MODEL = NFNet(CONFIG, key=jax.random.key(0))
PREPROCESS = Preprocess(input_size=(32, 32), test_input_size=(40, 48), crop_pct=0.9, resize="deepmind")
ABOUT: dict[str, Any] = {
    "architecture": "tiny",
    "preprocess": PREPROCESS,
    "labels": ("cat", "dog", "frog"),
    "training": {"epochs": 2.0, "optimizer": {"clipping": 0.01}},
    "results": {"top1": 50.0, "top5": 100.0, "loss": 0.7},
    "dataset": "digits",
    "base_model": None,
}
FILES = ["README.md", "config.json", "model.safetensors"]


def assert_same_parameters(found: NFNet, expected: NFNet) -> None:
    theirs = named_parameters(expected)
    for name, array in named_parameters(found).items():
        assert np.asarray(array).tobytes() == np.asarray(theirs[name], np.float32).tobytes(), name


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_was_trained_is_what_opens(tmp_path: Path):
    folder = tmp_path / "run" / "checkpoint"
    returned = export(MODEL, folder, **ABOUT)
    assert sorted(content(folder)) == FILES
    assert list(folder.parent.iterdir()) == [folder], "something was left beside it"
    for ckpt in (returned, from_pretrained(folder)):
        assert (ckpt.config, ckpt.preprocess, ckpt.labels) == (CONFIG, PREPROCESS, ABOUT["labels"])
        assert (ckpt.architecture, str(ckpt.source)) == ("tiny", str(folder))
        assert_same_parameters(ckpt.model, MODEL)
    card = (folder / "README.md").read_text()
    assert "| Top-1 | 50.00 % |" in card and "| `optimizer.clipping` | 0.01 |" in card
    picture = returned.preprocess(np.full((50, 60, 3), 128, np.uint8), use_test_size=True)
    np.testing.assert_array_equal(returned.model(picture), MODEL(picture))


def sharded(model: NFNet) -> NFNet:
    params, static = eqx.partition(model, eqx.is_array)
    return eqx.combine(put(params, partition_specs(params, make_mesh(), fsdp=True), make_mesh()), static)


def half(model: NFNet) -> NFNet:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_array(leaf) else leaf, model)


@pytest.mark.parametrize("change", [sharded, half])
def test_parameters_of_every_kind_come_back_to_the_bit(change: Callable[[NFNet], NFNet], tmp_path: Path):
    model = change(MODEL)
    ckpt = export(model, tmp_path / "checkpoint", **ABOUT)
    assert_same_parameters(ckpt.model, model)


def test_a_network_that_diverged_is_refused_by_the_name_of_what_is_not_finite(tmp_path: Path):
    model = eqx.tree_at(lambda m: m.head.fc.bias, MODEL, jnp.asarray([0.0, jnp.nan, 1.0]))
    with pytest.raises(InputError, match=r"checkpoint/model\.safetensors: .*'head\.fc\.bias' holds NaN"):
        export(model, tmp_path / "checkpoint", **ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_an_older_checkpoint_is_replaced(tmp_path: Path):
    export(MODEL, tmp_path / "checkpoint", **ABOUT)
    other = NFNet(CONFIG, key=jax.random.key(1))
    export(other, tmp_path / "checkpoint", **ABOUT | {"results": None})
    assert_same_parameters(from_pretrained(tmp_path / "checkpoint").model, other)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert sorted(content(tmp_path / "checkpoint")) == FILES


def test_an_empty_folder_is_filled_and_a_link_followed(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    export(MODEL, tmp_path / "link", **ABOUT)
    assert (tmp_path / "link").is_symlink()
    assert sorted(content(tmp_path / "real")) == FILES


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="thesis: holds 'chapter.tex', .*export to another folder"):
        export(MODEL, tmp_path / "thesis", **ABOUT)
    assert content(tmp_path / "thesis") == {"chapter.tex": b"years of work"}
    with pytest.raises(InputError, match="is a file"):
        export(MODEL, tmp_path / "thesis" / "chapter.tex", **ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


FAULTS = {
    "too few labels": ({"labels": ("cat", "dog")}, "2 labels for 3 classes"),
    "a label that would repaint a terminal": ({"labels": ("cat", "dog", "\x1b[2J")}, "plain text"),
    "a result that nobody knows": ({"results": {"top9": 1.0}}, "unknown top9"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refusal_leaves_the_older_checkpoint_and_nothing_else(fault: str, tmp_path: Path):
    export(MODEL, tmp_path / "checkpoint", **ABOUT)
    before = content(tmp_path / "checkpoint")
    changes, reason = FAULTS[fault]
    with pytest.raises(InputError, match=reason):
        export(MODEL, tmp_path / "checkpoint", **ABOUT | changes)
    assert content(tmp_path / "checkpoint") == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_folded_network_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="folded"):
        export(fold(MODEL), tmp_path / "checkpoint", **ABOUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["model.safetensors", "config.json"])
def test_a_disk_that_returns_something_else_is_noticed(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = module.write_json

    def and_then_a_bit_flips(path: Path, settings: dict[str, Any]) -> None:
        if what == "config.json":
            settings["pretrained_cfg"]["mean"][0] += 0.001
        else:
            data = bytearray(path.with_name(what).read_bytes())
            data[-1] ^= 1
            path.with_name(what).write_bytes(data)
        real(path, settings)

    monkeypatch.setattr(module, "write_json", and_then_a_bit_flips)
    with pytest.raises(
        RuntimeError, match="preprocess" if what == "config.json" else r"read back with another .*\w+\.\w+"
    ):
        export(MODEL, tmp_path / "checkpoint", **ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: Any, **known: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_card", full)
    with pytest.raises(InputError, match=f"^{tmp_path / 'checkpoint'}: cannot be written: No space left on device; "):
        export(MODEL, tmp_path / "checkpoint", **ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_imagenet_sized_heads_without_labels_export_too(tmp_path: Path):
    model = NFNet(dataclasses.replace(CONFIG, num_classes=1000), key=jax.random.key(0))
    assert len(export(model, tmp_path / "checkpoint", **ABOUT | {"labels": None}).labels) == 1000
