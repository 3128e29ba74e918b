"""Checkpoints in folders: timm's files in and out unchanged, ours complete, broken ones refused."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_eqx import NFNet, NFNetConfig, fold, named_parameters
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Checkpoint, load_checkpoint, save_pretrained
from nfnet_eqx.checkpoints._tensors import load_tensors, read_safetensors, write_safetensors
from nfnet_eqx.checkpoints._timm import TIMM_ARCHITECTURES, config_from_timm
from nfnet_eqx.images._preprocess import Preprocess
from nfnet_eqx.images.labels import imagenet1k
from nfnet_eqx.models._families import skeleton
from nfnet_eqx.zoo._hub import bundled, from_pretrained

TIMM = Path(__file__).parents[1] / "data" / "timm"
TINY = NFNetConfig(
    depths=(1,),
    widths=(16,),
    stem_widths=(8,),
    stem_strides=(2,),
    stage_strides=(2,),
    group_size=8,
    skipinit=True,
    num_classes=3,
    drop_rate=0.1,
    stochastic_depth=0.2,
)


def random_model(config: NFNetConfig) -> Any:
    """Every parameter at random: those of a fresh network would hide which is which, and take longer to make."""
    rng = np.random.default_rng(0)
    shapes = {name: leaf.shape for name, leaf in named_parameters(skeleton(config)).items()}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return load_tensors(config, tensors, source="random")


def checkpoint(config: NFNetConfig = TINY, **fields: Any) -> Checkpoint:
    model = random_model(config)
    return Checkpoint(**{"model": model, "preprocess": Preprocess(input_size=(32, 32)), "architecture": "t"} | fields)


def assert_same_parameters(a: NFNet, b: NFNet) -> None:
    first, second = named_parameters(a), named_parameters(b)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype, name
        np.testing.assert_array_equal(array, second[name], err_msg=name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved checkpoint, for tests that break it."""
    save_pretrained(checkpoint(labels=("a", "b", "c")), tmp_path)
    return tmp_path


def edit(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))


def forget_digests(folder: Path) -> None:
    """Make the config one that names no weights, as older ones and timm's."""
    ours = json.loads((folder / "config.json").read_text())["nfnet_eqx"]
    edit(folder, nfnet_eqx={key: value for key, value in ours.items() if key != "sha256"})


# --- round trips ---


@pytest.mark.parametrize("name", sorted(path.name for path in TIMM.glob("tiny_*")))
def test_timms_files_come_back_bit_equal(name: str, tmp_path: Path) -> None:
    save_pretrained(from_pretrained(TIMM / name), tmp_path)
    theirs, ours = read_safetensors(TIMM / name / "model.safetensors"), read_safetensors(tmp_path / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for tensor, array in theirs.items():
        assert ours[tensor].shape == array.shape and ours[tensor].tobytes() == array.tobytes(), tensor
    before = json.loads((TIMM / name / "config.json").read_text())
    after = json.loads((tmp_path / "config.json").read_text())
    assert config_from_timm({k: v for k, v in after.items() if k != "nfnet_eqx"}) == config_from_timm(before)
    kept = before["pretrained_cfg"].keys() - {"custom_load", "fixed_input_size", "pool_size"}
    assert {key: after["pretrained_cfg"][key] for key in kept} == {key: before["pretrained_cfg"][key] for key in kept}
    for key in ("architecture", "num_classes", "num_features", "global_pool"):
        assert after[key] == before[key]


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    about = {"license": "cc0-1.0", "tag": "mine", "notes": ["trained for a test"]}
    preprocess = Preprocess(
        input_size=(32, 48), test_input_size=(40, 40), crop_pct=0.8, test_crop_pct=1.0, resize="deepmind"
    )
    saved = checkpoint(preprocess=preprocess, labels=("Katze", "猫", "cat"), about=about)
    save_pretrained(saved, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == saved.config
    assert (loaded.preprocess, loaded.labels, loaded.architecture) == (preprocess, saved.labels, "t")
    assert loaded.about == about
    assert str(loaded.source) == str(tmp_path)
    assert_same_parameters(loaded.model, saved.model)


def test_parameters_keep_their_dtype_in_the_file(tmp_path: Path) -> None:
    saved = checkpoint()
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if isinstance(x, jax.Array) else x, saved.model)
    save_pretrained(dataclasses.replace(saved, model=half), tmp_path)
    assert {str(array.dtype) for array in read_safetensors(tmp_path / "model.safetensors").values()} == {"bfloat16"}
    assert_same_parameters(load_checkpoint(tmp_path, dtype=jnp.bfloat16).model, half)
    assert {str(array.dtype) for array in named_parameters(load_checkpoint(tmp_path).model).values()} == {"float32"}


def test_the_weights_alone_can_be_named(folder: Path) -> None:
    assert_same_parameters(from_pretrained(folder / "model.safetensors").model, from_pretrained(folder).model)


def test_shards_are_one_checkpoint(folder: Path) -> None:
    whole = load_checkpoint(folder)
    tensors = read_safetensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        write_safetensors(folder / shard, {name: tensors[name] for name in members})
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert_same_parameters(load_checkpoint(folder).model, whole.model)


def test_saving_replaces_a_checkpoint_and_leaves_nothing_else(folder: Path) -> None:
    other = checkpoint(dataclasses.replace(TINY, num_classes=7))
    save_pretrained(other, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert_same_parameters(load_checkpoint(folder).model, other.model)


# --- what timm sees ---


def test_what_timm_can_build_is_said_in_its_words(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = json.loads((folder / "config.json").read_text())
    assert settings["architecture"] in TIMM_ARCHITECTURES
    _, rebuilt = config_from_timm({key: value for key, value in settings.items() if key != "nfnet_eqx"})
    assert (rebuilt.depths, rebuilt.widths, rebuilt.stem_widths) == (TINY.depths, TINY.widths, TINY.stem_widths)
    assert settings["pretrained_cfg"]["first_conv"] == "stem.conv"
    assert settings["label_names"] == ["a", "b", "c"]
    assert not caplog.records


def test_a_network_that_timm_cannot_build_is_saved_under_a_name_it_does_not_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(TINY, stem_strides=(1,))
    save_pretrained(checkpoint(config, architecture="nf_resnet26"), tmp_path)
    assert "saved for nfnet_eqx alone: timm cannot build this network: it has no stem" in caplog.text
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] not in TIMM_ARCHITECTURES
    loaded = load_checkpoint(tmp_path)
    assert (loaded.config, loaded.architecture) == (config, "nf_resnet26")


def test_deepminds_numerics_are_kept_for_us_and_timm_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(TINY, numerics="deepmind")
    save_pretrained(checkpoint(config), tmp_path)
    assert "timm will open this checkpoint with its own numerics" in caplog.text
    assert load_checkpoint(tmp_path).config == config


def test_the_names_of_imagenet_are_not_repeated_in_every_file(tmp_path: Path) -> None:
    save_pretrained(checkpoint(dataclasses.replace(TINY, num_classes=1000), labels=imagenet1k()), tmp_path)
    assert "label_names" not in json.loads((tmp_path / "config.json").read_text())
    assert load_checkpoint(tmp_path).labels == imagenet1k()


# --- adapting ---


def test_another_number_of_classes_starts_a_new_head_and_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = load_checkpoint(folder), load_checkpoint(folder, num_classes=5)
    assert "the classifier for 3 classes was replaced by an untrained one for 5" in caplog.text
    assert new.config == dataclasses.replace(old.config, num_classes=5)
    assert new.labels is None
    assert_same_parameters(new.model, load_checkpoint(folder, num_classes=5).model)
    before, after = named_parameters(old.model), named_parameters(new.model)
    assert after["head.fc.weight"].shape == (5, 16) and float(jnp.abs(after["head.fc.weight"]).max()) > 0
    for name in before:
        if not name.startswith("head."):
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_the_stored_number_of_classes_keeps_the_head(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert_same_parameters(load_checkpoint(folder, num_classes=3).model, load_checkpoint(folder).model)
    assert load_checkpoint(folder, num_classes=3).labels == ("a", "b", "c")
    assert not caplog.records


def test_no_classes_give_features(folder: Path) -> None:
    model = load_checkpoint(folder, num_classes=0).model
    assert model.config.num_classes == 0
    assert not [name for name in named_parameters(model) if name.startswith("head.")]


def test_a_new_head_has_the_dtype_of_the_rest(folder: Path) -> None:
    model = load_checkpoint(folder, num_classes=5, dtype=jnp.bfloat16).model
    assert {str(array.dtype) for array in named_parameters(model).values()} == {"bfloat16"}


def test_other_input_channels_adapt_the_first_convolution(folder: Path) -> None:
    color, gray = load_checkpoint(folder), load_checkpoint(folder, in_channels=1)
    assert gray.config.in_channels == 1
    weight = color.model.stem["conv"].weight.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(gray.model.stem["conv"].weight, weight)


def test_the_pictures_classes_are_named(folder: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    best = load_checkpoint(folder).classify(picture, top=2)
    assert len(best) == 2 and {p.label for p in best} < {"a", "b", "c"}
    assert 1 > best[0].probability >= best[1].probability > 0


# --- labels ---


def test_labels_by_index_may_have_gaps(folder: Path) -> None:
    edit(folder, label_names={"0": "zero", "2": "two"})
    assert load_checkpoint(folder).labels == ("zero", "class 1", "two")


def test_without_labels_there_are_none(folder: Path) -> None:
    edit(folder, label_names=None)
    assert load_checkpoint(folder).labels is None


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", "b"], "must name 3 classes"),
        ("abc", "must name 3 classes"),
        ({"3": "d"}, "has no class '3': there are 3"),
        (["a", 1, "c"], "the name of class 1 must be plain text, got 1"),
        (["a", "b", "\x1b[2J"], "the name of class 2 must be plain text"),
        (["\ud800", "b", "c"], "the name of class 0 must be plain text"),
    ],
)
def test_impossible_labels_are_refused(names: Any, reason: str, folder: Path) -> None:
    edit(folder, label_names=names)
    with pytest.raises(InputError, match=f"config.json: label_names.*{reason}"):
        load_checkpoint(folder)


def test_a_checkpoint_has_a_label_for_each_class() -> None:
    with pytest.raises(InputError, match="2 labels for 3 classes"):
        checkpoint(labels=("a", "b"))


# --- broken folders ---


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model.safetensors .*; it holds nothing"):
        load_checkpoint(tmp_path)


def test_a_folder_of_something_else_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "cat").mkdir(parents=True)
    (other / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match="other: holds no .* it holds cat, notes.txt; give the folder of a checkpoint"):
        load_checkpoint(other)
    save_pretrained(checkpoint(labels=("a", "b", "c")), other / "checkpoint")
    with pytest.raises(InputError, match="other: holds no .* did you mean .*/other/checkpoint"):
        load_checkpoint(other)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_checkpoint(tmp_path / "nothing")


def test_pickles_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds no model.safetensors .* pickles among them, are never read"):
        load_checkpoint(folder)
    with pytest.raises(InputError, match="pytorch_model.bin: no safetensors file"):
        load_checkpoint(folder / "pytorch_model.bin")


def test_weights_without_a_config_are_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="config.json: no such file"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not valid JSON"),
        ("[1]", "a JSON object is needed"),
        ("[" * 200_000, "not valid JSON"),
        ("{" + " " * 9_000_000 + "}", "more than 8388608 bytes of JSON"),
        ("{}", "None is none of timm's NFNet or ViT architectures"),
        ('{"architecture": "vit_base"}', "'vit_base' is none of timm's"),
        ('{"architecture": "nfnet_f0", "model_args": {"channels": [1000000, 1, 1, 1]}}', "widths must lie between"),
        ('{"architecture": "nfnet_f0", "model_args": {"img_size": 9}}', "'img_size' .=9. is not supported"),
        ('{"architecture": "nfnet_f0", "pretrained_cfg": {"std": "x"}}', "std"),
        ('{"architecture": "nfnet_f0", "pretrained_cfg": {"notes": 1e999}}', "1e999 is too large"),
        ('{"architecture": "nfnet_f0", "pretrained_cfg": {"crop_pct": 1' + "0" * 400 + "}}", "crop_pct"),
        ('{"nfnet_eqx": 3}', "nfnet_eqx.config must be an object"),
        ('{"nfnet_eqx": {"config": {}}}', "architecture must be a name"),
        ('{"nfnet_eqx": {"config": {}}, "architecture": "a"}', "'depths' is missing"),
        ('{"nfnet_eqx": {"config": {"depth": 3}}, "architecture": "a"}', "unknown key 'depth'"),
    ],
    ids=lambda v: v[:40],
)
def test_a_broken_config_is_refused_before_the_weights_are_read(content: str, reason: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=f"config.json.*{reason}"):
        load_checkpoint(folder)


def test_an_absurd_native_config_is_refused(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["nfnet_eqx"]["config"] |= {"widths": [10**9], "depths": [10**9]}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="depths must lie between .* widths must lie between"):
        load_checkpoint(folder)


def test_a_native_description_of_null_is_none(folder: Path) -> None:
    edit(folder, nfnet_eqx=None)
    assert load_checkpoint(folder).config.numerics == "timm"


def test_a_resize_that_does_not_exist_is_refused(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["nfnet_eqx"]["resize"] = "mine"
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="config.json: .*resize must be one of .* got 'mine'"):
        load_checkpoint(folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_what_wrappers_of_pytorch_put_before_every_name_is_left_out(
    prefix: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected, weights = load_checkpoint(folder).model, folder / "model.safetensors"
    tensors = read_safetensors(weights)
    write_safetensors(weights, {prefix + name: array for name, array in tensors.items()})
    forget_digests(folder)
    with caplog.at_level("INFO"):
        assert_same_parameters(load_checkpoint(folder).model, expected)
    assert f"'{prefix}' before all names of tensors is left out" in caplog.text
    first = next(iter(tensors))
    write_safetensors(weights, {name if name == first else prefix + name: array for name, array in tensors.items()})
    with pytest.raises(InputError, match="missing .* unexpected"):
        load_checkpoint(folder)


@pytest.mark.parametrize("asked", [None, 1])
def test_a_file_has_as_many_input_channels_as_its_weights(
    asked: int | None, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = folder / "model.safetensors"
    tensors = read_safetensors(weights)
    write_safetensors(weights, tensors | {"stem.conv.weight": tensors["stem.conv.weight"].sum(1, keepdims=True)})
    forget_digests(folder)
    ckpt = load_checkpoint(folder, in_channels=asked)
    assert ckpt.config.in_channels == 1 and "the weights are for 1 input channels, config.json says 3" in caplog.text
    np.testing.assert_array_equal(
        named_parameters(ckpt.model)["stem.conv.weight"], tensors["stem.conv.weight"].sum(1, keepdims=True)
    )


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    shutil.copy(TIMM / "tiny_nfnet" / "model.safetensors", folder)
    forget_digests(folder)
    with pytest.raises(InputError, match=r"model.safetensors: the tensors do not fit .* missing .* unexpected"):
        load_checkpoint(folder)


def test_a_folded_network_is_not_saved(tmp_path: Path) -> None:
    ckpt = checkpoint()
    with pytest.raises(InputError, match="A folded network cannot be saved"):
        save_pretrained(dataclasses.replace(ckpt, model=fold(ckpt.model)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- bundled ---


def test_every_bundled_checkpoint_opens_by_its_name() -> None:
    for name in bundled():
        ckpt = from_pretrained(name)
        assert str(ckpt.source) == name
        assert ckpt.labels is not None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("dm_nfnet_f0", "is an architecture, and which of its weights are meant is not clear"),
        ("no-such-thing", "is no bundled checkpoint .* no existing folder, and no Hub id"),
        ("vit_base_patch14_224", "no Hub id .*; did you mean 'vit_base_patch16_224' or "),
        ("./org/name", "no existing folder"),
        ("/no/such/folder", "no existing folder"),
        ("org/name/file", "no existing folder"),
        ("", "no existing folder"),
        ("org/../name", "no existing folder"),
    ],
)
def test_what_is_neither_is_refused(source: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        from_pretrained(source)


def test_the_count_of_averaged_networks_is_no_parameter(folder: Path) -> None:
    """torch.optim.swa_utils.AveragedModel puts it beside the names, all of which begin with `module.`."""
    expected, weights = load_checkpoint(folder).model, folder / "model.safetensors"
    tensors = {f"module.{name}": array for name, array in read_safetensors(weights).items()}
    write_safetensors(weights, tensors | {"n_averaged": np.asarray(7)})
    forget_digests(folder)
    assert_same_parameters(load_checkpoint(folder).model, expected)
