"""Vision transformers against timm's: every name, every kind of head, positions and registers, other image sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfnet_eqx import from_pretrained, named_parameters
from nfnet_eqx.checkpoints._timm import config_from_timm, config_to_timm
from nfnet_eqx.checkpoints._timm_vit import READER
from nfnet_eqx.models import VITS, skeleton
from tests.live.pair import Pair, arrays, assert_equal_outputs, pair, picture, randomize, small, timm
from tests.live.test_timm_opens_ours import assert_timm_opens_what_we_save

NAMES = list(READER.architectures)
# Many logits: of a few, whose largest error is larger would be luck.
TINY: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32, "num_classes": 64}
# Positions over the prefix (timm's default) and without it; registers; each pool with a class token and, where it can
# be, without one.
KINDS: list[dict[str, Any]] = [
    {"global_pool": pool, "class_token": token, "no_embed_class": bare, "reg_tokens": registers}
    for pool in ("token", "avg", "map")
    for token in (True, False)
    for registers in (0, 2)
    for bare in (False, True)
    if (token or pool != "token") and (token or registers or not bare)
]
SETTINGS: list[dict[str, Any]] = [
    {"act_layer": "gelu_tanh"},
    {"act_layer": "quick_gelu", "global_pool": "map"},
    {"qkv_bias": False},
    {"mlp_ratio": 3.7362},
    {"num_classes": 0},
    {"in_chans": 1},
    {"fix_init": True, "norm_layer": "layernorm", "attn_layer": "attn", "init_values": 0.0},
]


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_every_name_is_timms(name: str) -> None:
    """At full size; nothing is computed."""
    said, settings = config_to_timm(name, VITS[name].config)
    theirs = timm.create_model(said, device="meta", **settings, drop_path_rate=0.2)
    _, config = config_from_timm({"architecture": name, "model_args": settings | {"drop_path_rate": 0.2}})
    ours = skeleton(config)
    assert {n: leaf.shape for n, leaf in named_parameters(ours).items()} == {
        n: tuple(tensor.shape) for n, tensor in theirs.state_dict().items()
    }
    for block, their_block in zip(ours.blocks, theirs.blocks, strict=True):
        for path in (their_block.drop_path1, their_block.drop_path2):
            assert block.stochastic_depth.rate == pytest.approx(getattr(path, "drop_prob", 0.0), abs=1e-7)
        assert block.attn.heads == their_block.attn.num_heads
        assert (block.norm1.eps, block.norm2.eps) == (their_block.norm1.eps, their_block.norm2.eps)
    published = timm.get_pretrained_cfg(name)
    assert published.input_size == (3, VITS[name].train_size, VITS[name].train_size)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_made_small(name: str) -> None:
    settings = small(name)
    networks = pair(name, seed=NAMES.index(name), **settings, num_classes=10)
    assert_equal_outputs(networks, picture(settings["img_size"]), name)


@pytest.mark.parametrize("settings", [*KINDS, *SETTINGS], ids=str)
def test_every_kind_at_its_size_and_at_others(settings: dict[str, Any]) -> None:
    networks = pair("vit_base_patch16_224", **TINY | settings, dynamic_img_size=True)
    for size in (32, (24, 48)):
        x = picture(size, settings.get("in_chans", 3))
        assert_equal_outputs(networks, x, f"{settings} at {size}", jit=False)


@pytest.mark.parametrize("size", [8, 24, 40, (64, 8), 152])
def test_positions_are_resampled_as_timm_does_it(size: int | tuple[int, int]) -> None:
    networks = pair("vit_base_patch16_224", **TINY, dynamic_img_size=True)
    assert_equal_outputs(networks, picture(size), f"positions for 32 px at {size}", jit=False)
    if isinstance(size, int):
        networks.theirs.set_input_size(img_size=(size, size))
        moved, expected = networks.ours.at_image_size(size), networks.theirs.pos_embed.detach().numpy()
        np.testing.assert_allclose(named_parameters(moved)["pos_embed"], expected, rtol=0, atol=5e-6)


def test_the_whole_base_model() -> None:
    assert_equal_outputs(pair("vit_base_patch16_224"), picture(224), "vit_base_patch16_224 in full at 224 px")


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_so400m_patch14_siglip_378"])
def test_what_timm_saves_opens_as_the_same_network(name: str, tmp_path: Path) -> None:
    theirs = timm.create_model(name, **small(name), num_classes=10).eval()
    randomize(theirs, 0)
    labels = {"label_names": [f"label {i}" for i in range(10)]}
    timm.models.save_for_hf(theirs, tmp_path, model_config=labels, safe_serialization=True)
    ckpt = from_pretrained(tmp_path)
    assert (ckpt.architecture, ckpt.labels) == (name, tuple(f"label {i}" for i in range(10)))
    ours = named_parameters(ckpt.model)
    assert all(np.asarray(ours[tensor]).tobytes() == array.tobytes() for tensor, array in arrays(theirs).items())
    size = ckpt.config.trial_size
    assert ckpt.preprocess.size() == (size, size)
    assert_equal_outputs(Pair(theirs, ckpt.model), picture(size), f"{name}, saved by timm", jit=False)


@pytest.mark.parametrize("name", NAMES)
def test_timm_opens_each_of_its_architectures(name: str, tmp_path: Path) -> None:
    settings = small(name)
    assert_timm_opens_what_we_save(name, settings, tmp_path, settings["img_size"])


@pytest.mark.parametrize("settings", [*KINDS, *SETTINGS], ids=str)
def test_timm_opens_every_kind(settings: dict[str, Any], tmp_path: Path) -> None:
    assert_timm_opens_what_we_save("vit_base_patch16_224", TINY | settings, tmp_path, 32)
