"""What we save, timm opens: the same network with the same parameters, for every kind of network that it has."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfnet_eqx.checkpoints import Checkpoint, load_checkpoint, save_pretrained
from nfnet_eqx.checkpoints._tensors import load_tensors
from nfnet_eqx.checkpoints._timm import config_from_timm
from nfnet_eqx.checkpoints._timm_nfnet import READER
from nfnet_eqx.images._preprocess import Preprocess
from tests.live.pair import arrays, picture, randomize, small, timm, timm_outputs

SETTINGS: list[dict[str, Any]] = [
    {"alpha": 0.3},
    {"stem_type": "", "stem_chs": 20},
    {"stem_type": "3x3_pool", "stem_chs": None},
    {"stem_type": "7x7_pool"},
    {"stem_type": "deep_pool"},
    {"stem_type": "deep_tiered", "stem_chs": 32},
    {"stem_type": "deep_quad", "stem_chs": 40},
    {"group_size": None},
    {"group_size": 4, "ch_div": 4},
    {"attn_layer": None},
    {"attn_layer": "se", "attn_kwargs": {"rd_ratio": 0.3, "rd_divisor": 4}},
    {"attn_layer": "se", "attn_kwargs": {"rd_channels": 12}},
    {"attn_layer": "eca", "attn_kwargs": {"gamma": 1, "beta": 2}},
    {"attn_gain": 1.5},
    {"width_factor": 1.5},
    {"bottle_ratio": 1.0},
    {"num_features": None},
    {"num_features": 100},
    {"reg": True},
    {"extra_conv": True},
    {"extra_conv": False},
    {"gamma_in_act": True},
    {"gamma_in_act": False},
    {"same_padding": True},
    {"same_padding": False},
    {"std_conv_eps": 1e-3},
    {"skipinit": True},
    {"skipinit": False},
    {"zero_init_fc": True},
    {"act_layer": "tanh"},
    {"act_layer": "leaky_relu"},
    {"output_stride": 8},
    {"output_stride": 16},
    {"in_chans": 4},
    {"num_classes": 7},
    {"num_classes": 0},
]


def assert_timm_opens_what_we_save(architecture: str, model_args: dict[str, Any], folder: Path, side: int = 64) -> None:
    # From a file, as timm's own are read: null, among the arguments of create_model, would mean "not given".
    config_json = {"architecture": architecture, "pretrained_cfg": {}, "model_args": model_args}
    (folder / "config.json").write_text(json.dumps(config_json))
    original = timm.create_model(f"local-dir:{folder}").eval()
    randomize(original, 0)
    _, config = config_from_timm(config_json)
    model = load_tensors(config, arrays(original), source=architecture)
    preprocess = Preprocess(input_size=(side, side), crop_pct=0.9, crop_mode="squash", mean=(0.1, 0.2, 0.3))
    save_pretrained(Checkpoint(model=model, preprocess=preprocess, architecture=architecture), folder)

    opened = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    before, after = arrays(original), arrays(opened)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert array.tobytes() == after[name].tobytes() and array.shape == after[name].shape, name
    x = picture(side, config.in_channels)
    expected, found = timm_outputs(original, x), timm_outputs(opened, x)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert tuple(opened.pretrained_cfg["input_size"]) == (config.in_channels, side, side)
    assert opened.pretrained_cfg["crop_mode"] == "squash"


@pytest.mark.parametrize("architecture", READER.architectures)
def test_timm_opens_each_of_its_architectures(architecture: str, tmp_path: Path) -> None:
    assert_timm_opens_what_we_save(architecture, small(architecture), tmp_path)


@pytest.mark.parametrize("number", range(len(SETTINGS)))
@pytest.mark.parametrize("architecture", ["nfnet_f0", "nf_regnet_b0"])
def test_timm_opens_a_network_with_other_settings(architecture: str, number: int, tmp_path: Path) -> None:
    model_args = small(architecture) | SETTINGS[number]
    assert_timm_opens_what_we_save(architecture, model_args, tmp_path)


def test_what_timm_saves_and_we_save_again_is_what_timm_saved(tmp_path: Path) -> None:
    original = timm.create_model("nfnet_l0", **small("nfnet_l0"), num_classes=3).eval()
    randomize(original, 0)
    labels = ["one", "two", "three"]
    timm.models.save_for_hf(
        original, tmp_path / "theirs", model_config={"label_names": labels}, safe_serialization=True
    )
    ckpt = load_checkpoint(tmp_path / "theirs")
    assert ckpt.labels == tuple(labels)
    save_pretrained(ckpt, tmp_path / "ours")
    opened = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
    x = picture(64)
    np.testing.assert_array_equal(timm_outputs(opened, x)["logits"], timm_outputs(original, x)["logits"])
    kept = ("input_size", "test_input_size", "crop_pct", "test_crop_pct", "crop_mode", "interpolation", "mean", "std")
    for key in (*kept, "license", "tag", "first_conv", "classifier"):
        theirs, ours = (
            tuple(value) if isinstance(value, list) else value
            for value in (original.pretrained_cfg.get(key), opened.pretrained_cfg.get(key))
        )
        assert ours == theirs, key
    assert list(opened.pretrained_cfg["label_names"]) == labels
