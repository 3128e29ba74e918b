"""DeepMind's files, names, layouts and architectures."""

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.convert import _haiku_names
from nfnet_eqx.convert._deepmind import (
    convert_numerics,
    deepmind_to_native,
    native_to_deepmind,
    read_deepmind,
    write_deepmind,
)
from nfnet_eqx.models import NFNETS, named_parameters, skeleton
from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._families import get_config

DATA = Path(__file__).parents[1] / "data" / "deepmind"
PROVENANCE = json.loads((DATA / "provenance.json").read_text())
SCHEMAS = json.loads((DATA / "schemas.json").read_text())
FORMS = sorted((DATA / "forms").glob("*.npz"))
T0 = DATA / "T0_dill0.3.3_p3.npz"
DEEPMINDS = [f"dm_nfnet_f{size}{plus}" for plus in ("", "_plus") for size in range(8)]

# The smallest network with everything in it that a DeepMind network has.
SMALL = dataclasses.replace(
    get_config("dm_nfnet_f0"),
    depths=(1, 2, 1, 1),
    widths=(32, 16, 16, 16),
    stem_widths=(8, 8, 8, 16),
    group_size=8,
    num_features=24,
    num_classes=3,
)

Tree = dict[str, dict[str, np.ndarray]]


def random_tree(config: NFNetConfig) -> Tree:
    random = np.random.RandomState(0)
    tree: Tree = {}
    for entry in _haiku_names.entries(config):
        tree.setdefault(entry.module, {})[entry.name] = random.standard_normal(entry.shape).astype(np.float32)
    return tree


@pytest.fixture
def tree() -> Tree:
    return random_tree(SMALL)


def assert_bit_equal(a: Any, b: Any) -> None:
    assert {m: set(leaves) for m, leaves in a.items()} == {m: set(leaves) for m, leaves in b.items()}
    for module, leaves in a.items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(leaf, b[module][name], err_msg=f"{module} {name}", strict=True)


def test_the_files_are_the_ones_described():
    files = [path for path in DATA.rglob("*") if path.suffix in (".npz", ".json") and path.name != "provenance.json"]
    found = {path.relative_to(DATA).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == {name: described["sha256"] for name, described in PROVENANCE["files"].items()}


# Reading.


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_every_form_of_pickle_is_read_exactly(form: Path):
    spec = importlib.util.spec_from_file_location("make_forms", DATA / "make_forms.py")
    assert spec and spec.loader
    make_forms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_forms)
    read = read_deepmind(form)
    expected = make_forms.tree()
    assert_bit_equal(
        {
            m: {n: np.asarray(leaf).astype(leaf.dtype.newbyteorder("=")) for n, leaf in ls.items()}
            for m, ls in expected.items()
        },
        read,
    )


def test_t0_holds_what_its_rule_says():
    read = read_deepmind(T0)
    random = np.random.RandomState(0)
    for module in sorted(read):
        for name in sorted(read[module]):
            leaf = read[module][name]
            z = np.asarray(random.standard_normal(leaf.shape))
            match name, leaf.ndim:
                case "w", 4:
                    expected = (z + 0.25) / np.sqrt(np.prod(leaf.shape[:3]))
                case "w", 2:
                    expected = z / np.sqrt(leaf.shape[0])
                case "gain", 1:
                    expected = 1 + 0.1 * z
                case "skip_gain", 0:
                    expected = 0.5 + 0.1 * z
                case _:
                    expected = 0.1 * z
            np.testing.assert_array_equal(leaf, expected.astype(np.float32), err_msg=f"{module} {name}")


def test_what_is_read_cannot_change_the_file():
    leaf = read_deepmind(T0)["NFNet/~/linear"]["w"]
    with pytest.raises(ValueError, match="read-only"):
        leaf[0, 0] = 1


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        read_deepmind(tmp_path / "F0_haiku.npz")
    with pytest.raises(InputError, match="not a file"):
        read_deepmind(tmp_path)


# Recognising.


@pytest.mark.parametrize("size", range(8))
def test_every_published_network_is_recognised_by_its_shapes(size: int):
    config, schema = get_config(f"dm_nfnet_f{size}"), SCHEMAS[f"F{size}"]
    shapes = {entry[:2]: entry.shape for entry in _haiku_names.entries(config)}
    listing = sorted(f"{module} {name} {'x'.join(map(str, shape))}" for (module, name), shape in shapes.items())
    if size == 0:
        assert listing == schema["listing"]
    assert len(shapes) == schema["arrays"]
    assert len({module for module, _ in shapes}) == schema["modules"]
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == schema["parameters"]
    assert hashlib.sha256("\n".join(listing).encode()).hexdigest() == schema["sha256"]
    assert _haiku_names.recognise(shapes) == config


@pytest.mark.parametrize("name", ["dm_nfnet_f0", "dm_nfnet_f0_plus", "dm_nfnet_f6"])
def test_every_array_has_a_place_in_the_network(name: str):
    config = get_config(name)
    wanted = {name: leaf.shape for name, leaf in named_parameters(skeleton(config)).items()}
    assert {entry.native: entry.native_shape() for entry in _haiku_names.entries(config)} == wanted


@pytest.mark.parametrize("name", DEEPMINDS)
def test_a_network_is_recognised_with_other_classes_and_channels(name: str):
    config = dataclasses.replace(get_config(name), num_classes=7, in_channels=4)
    recognised = _haiku_names.recognise({entry[:2]: entry.shape for entry in _haiku_names.entries(config)})
    assert recognised == config
    assert _haiku_names.architecture_of(recognised) == name
    assert _haiku_names.architecture_of(dataclasses.replace(recognised, numerics="timm", drop_rate=0.2)) == name


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"se_ratio": 0.25},
        # Bottlenecks and hidden widths that timm would round to a multiple of 8.
        {"widths": (40, 24, 24, 24), "group_size": 4, "channel_divisor": 1, "se_divisor": 1},
        {"depths": (3, 1, 12, 2), "group_size": 4},
    ],
)
def test_a_network_without_a_name_is_recognised(fields: dict):
    config = dataclasses.replace(SMALL, **fields)
    recognised, tensors = deepmind_to_native(random_tree(config))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert shapes == {entry.native: entry.native_shape() for entry in _haiku_names.entries(config)}
    assert dataclasses.replace(recognised, se_divisor=8, channel_divisor=8) == dataclasses.replace(
        config, se_divisor=8, channel_divisor=8
    )
    assert _haiku_names.architecture_of(recognised) is None


def test_every_name_of_the_family_is_its_own():
    assert [_haiku_names.architecture_of(get_config(name)) for name in NFNETS] == list(NFNETS)


def test_t0_is_recognised():
    config, _ = deepmind_to_native(read_deepmind(T0))
    assert config == dataclasses.replace(
        get_config("dm_nfnet_f0"),
        depths=(1, 2, 1, 1),
        widths=(256, 64, 96, 96),
        group_size=16,
        num_features=192,
        num_classes=10,
    )


# Converting.


def test_every_array_is_laid_out_as_ours(tree: Tree):
    _, tensors = deepmind_to_native(tree)
    for tensor in tensors.values():
        assert tensor.flags.c_contiguous and tensor.flags.owndata and tensor.dtype == np.float32
    block = tree["NFNet/~/nf_block_2/~/conv1"]
    assert tensors["stages.1.1.conv2.weight"][5, 1, 0, 2] == block["w"][0, 2, 1, 5]
    np.testing.assert_array_equal(tensors["stages.1.1.conv2.gain"][:, 0, 0, 0], block["gain"])
    np.testing.assert_array_equal(tensors["stages.1.1.conv2.bias"], block["bias"])
    assert tensors["stages.1.1.skipinit_gain"] == tree["NFNet/~/nf_block_2"]["skip_gain"]
    se = tree["NFNet/~/nf_block_4/~/squeeze_excite/~/linear_1"]
    np.testing.assert_array_equal(tensors["stages.3.0.attn_last.fc2.weight"][:, :, 0, 0], se["w"].T)
    np.testing.assert_array_equal(tensors["head.fc.weight"], tree["NFNet/~/linear"]["w"].T)
    np.testing.assert_array_equal(tensors["stem.conv4.bias"], tree["NFNet/~/stem_conv3"]["bias"])


def test_there_and_back_is_bit_equal(tmp_path: Path):
    read = read_deepmind(T0)
    config, tensors = deepmind_to_native(read)
    back = native_to_deepmind(config, tensors)
    assert_bit_equal(read, back)
    assert all(leaf.flags.c_contiguous for leaves in back.values() for leaf in leaves.values())
    write_deepmind(tmp_path / "back.npz", back)
    assert_bit_equal(read, read_deepmind(tmp_path / "back.npz"))
    again, tensors_again = deepmind_to_native(read_deepmind(tmp_path / "back.npz"))
    assert again == config
    assert_bit_equal({"": tensors}, {"": tensors_again})


def test_other_precisions_become_float32(tree: Tree):
    tree["NFNet/~/linear"]["w"] = tree["NFNet/~/linear"]["w"].astype(np.float16)
    tree["NFNet/~/linear"]["b"] = tree["NFNet/~/linear"]["b"].astype(">f8")
    _, tensors = deepmind_to_native(tree)
    assert tensors["head.fc.weight"].dtype == tensors["head.fc.bias"].dtype == np.float32
    np.testing.assert_array_equal(tensors["head.fc.weight"], tree["NFNet/~/linear"]["w"].T.astype(np.float32))


def message_of(function: Callable, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_faults_are_told_at_once(tree: Tree):
    del tree["NFNet/~/nf_block_1/~/conv0"]["gain"]
    tree["NFNet/~/nf_block_3"]["momentum"] = np.zeros(3, np.float32)
    tree["Other"] = {"w": np.zeros(3, np.float32)}
    tree["NFNet/~/nf_block_4/~/conv1b"]["bias"] = np.zeros(9, np.float32)
    tree["NFNet/~/stem_conv1"]["w"][0, 0, 0, 0] = np.nan
    tree["NFNet/~/nf_block_2/~/conv2"]["bias"][1] = np.inf
    message = message_of(deepmind_to_native, tree, source="F9_haiku.npz")
    assert message.startswith("F9_haiku.npz: ")
    for part in (
        "1 missing (NFNet/~/nf_block_1/~/conv0 gain)",
        "2 unexpected (NFNet/~/nf_block_3 momentum, Other w)",
        "1 of another shape (NFNet/~/nf_block_4/~/conv1b bias is (9,), not (8,))",
        "2 not finite (NFNet/~/stem_conv1 w, NFNet/~/nf_block_2/~/conv2 bias)",
    ):
        assert part in message, message


def test_a_number_too_large_for_float32_is_refused(tree: Tree):
    tree["NFNet/~/linear"]["b"] = np.full(3, 1e300)
    assert "1 not finite (NFNet/~/linear b)" in message_of(deepmind_to_native, tree)


def test_an_architecture_can_be_insisted_on(tree: Tree):
    message = message_of(deepmind_to_native, tree, architecture="dm_nfnet_f0")
    for part in (
        "the 233 arrays of dm_nfnet_f0",
        "missing",
        "of another shape",
        "stem_conv0 w is (3, 3, 3, 8), not (3, 3, 3, 16)",
    ):
        assert part in message, message
    assert "unknown architecture 'dm_nfnet_f9'" in message_of(deepmind_to_native, tree, architecture="dm_nfnet_f9")
    assert "no network of DeepMind's" in message_of(deepmind_to_native, tree, architecture="nfnet_f0")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda tree: tree.clear(), "those that have one: none"),
        (lambda tree: tree.pop("NFNet/~/nf_block_3/~/conv_shortcut"), "nf_block, nf_block_1, nf_block_4"),
        (lambda tree: tree.pop("NFNet/~/stem_conv2"), "NFNet/~/stem_conv2 w is missing"),
        (lambda tree: tree["NFNet/~/linear"].update(w=np.ones(3)), "NFNet/~/linear w has shape (3,)"),
        (
            lambda tree: tree.update({"NFNet/~/nf_block_99999": {"w": np.ones(3)}}),
            "nf_block_99999 would be one of more",
        ),
        (lambda tree: tree["NFNet/~/nf_block/~/conv1"].update(w=np.ones((3, 3, 99, 16))), "narrower than one group"),
        (
            lambda tree: tree["NFNet/~/final_conv"].update(w=np.broadcast_to(np.float32(1), (1, 1, 16, 10**9))),
            "num_features must lie between",
        ),
    ],
)
def test_an_impossible_architecture_is_refused(tree: Tree, damage: Callable, named: str):
    damage(tree)
    message = message_of(deepmind_to_native, tree, source="x.npz")
    assert message.startswith("x.npz: ") and named in message, message


def test_only_networks_of_deepminds_code_get_its_names(tree: Tree):
    config, tensors = deepmind_to_native(tree)
    for fields, named in (
        ({"numerics": "timm"}, "numerics='timm' (only 'deepmind')"),
        ({"alpha": 0.3}, "alpha=0.3 (only 0.2)"),
        ({"skipinit": False, "activation": "silu"}, "activation='silu' (only 'gelu'), skipinit=False (only True)"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_features": None}, "num_features=None"),
        ({"group_size": None}, "group_size=None"),
        ({"stem_widths": (8, 8, 8, 32)}, "stem_widths"),
    ):
        assert named in message_of(native_to_deepmind, dataclasses.replace(config, **fields), tensors)
    assert "block='regnet'" in message_of(native_to_deepmind, get_config("nf_regnet_b0"), {})


def test_tensors_of_another_network_do_not_get_deepminds_names(tree: Tree):
    config, tensors = deepmind_to_native(tree)
    wrong = dict(tensors, extra=np.zeros(3)) | {"head.fc.bias": np.zeros(4)}
    del wrong["stem.conv1.gain"]
    message = message_of(native_to_deepmind, config, wrong)
    for part in ("1 missing (stem.conv1.gain)", "1 unexpected (extra)", "head.fc.bias is (4,), not (3,)"):
        assert part in message, message


# Numerics.


def test_converting_numerics_there_and_back_gives_the_gains_to_the_last_digit(tree: Tree):
    config, tensors = deepmind_to_native(tree)
    there_config, there = convert_numerics(config, tensors, "timm")
    back_config, back = convert_numerics(there_config, there, "deepmind")
    assert (there_config.numerics, back_config) == ("timm", config)
    for name, tensor in tensors.items():
        if name.endswith(".gain"):
            np.testing.assert_allclose(back[name], tensor, rtol=2e-7, err_msg=name)
        else:
            assert there[name] is tensor, name


def test_converting_to_the_numerics_that_are_there_changes_nothing(tree: Tree):
    config, tensors = deepmind_to_native(tree)
    same_config, same = convert_numerics(config, tensors, "deepmind")
    assert same_config == config and all(same[name] is tensor for name, tensor in tensors.items())


def test_the_gains_follow_the_two_formulas():
    weight = np.array([[1e-3, -1e-3], [1e-6, 3e-6], [2.0, 2.0]], np.float32).reshape(3, 2, 1, 1)
    tensors = {"stem.conv1.weight": weight, "stem.conv1.gain": np.full((3, 1, 1, 1), 0.5, np.float32)}
    _, converted = convert_numerics(get_config("dm_nfnet_f0"), tensors, "timm")
    var = weight.astype(np.float64).var(axis=(1, 2, 3))
    expected = 0.5 * np.sqrt((var + 1e-5) * 2 / np.maximum(var * 2, 1e-4))
    np.testing.assert_allclose(converted["stem.conv1.gain"][:, 0, 0, 0], expected, rtol=1e-7)


def test_a_filter_without_variance_and_no_eps_keeps_its_gain():
    tensors = {
        "stem.conv1.weight": np.ones((2, 3, 1, 1), np.float32),
        "stem.conv1.gain": np.ones((2, 1, 1, 1), np.float32),
    }
    config = dataclasses.replace(get_config("dm_nfnet_f0"), std_conv_eps=0.0)
    for to in ("deepmind", "timm"):
        other = "timm" if to == "deepmind" else "deepmind"
        _, converted = convert_numerics(dataclasses.replace(config, numerics=other), tensors, to)
        np.testing.assert_array_equal(converted["stem.conv1.gain"], tensors["stem.conv1.gain"])


def test_a_gain_without_a_weight_is_refused():
    with pytest.raises(InputError, match="stem.conv1.gain"):
        convert_numerics(get_config("dm_nfnet_f0"), {"stem.conv1.gain": np.ones((2, 1, 1, 1))}, "timm")
