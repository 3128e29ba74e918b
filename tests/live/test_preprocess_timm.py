"""Preprocessing against timm itself, where it is installed: all published checkpoints, every mode, whole outputs."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nfnet_eqx.images import Preprocess, open_image
from tests.live.pair import timm

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = sorted((ROOT / "examples" / "images").glob("*.jpg"))
SMALL = sorted(path for path in (ROOT / "tests" / "data" / "preprocess").glob("*") if path.suffix in (".png", ".tif"))
CHECKPOINTS = [f"dm_nfnet_f{size}.dm_in1k" for size in range(7)] + [
    "nfnet_l0.ra2_in1k",
    "eca_nfnet_l0.ra2_in1k",
    "eca_nfnet_l1.ra2_in1k",
    "eca_nfnet_l2.ra3_in1k",
    "nf_regnet_b1.ra2_in1k",
    "nf_resnet50.ra2_in1k",
    "test_nfnet.r160_in1k",
]

Transform = Callable[[Image.Image], Any]


def as_timm_opens_it(path: Path) -> Image.Image:
    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore")
        converted = image.convert("RGB")
    converted.info = {}
    return converted


@pytest.mark.parametrize("use_test_size", [False, True], ids=["train", "test"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_published_checkpoint_sees_what_it_sees_in_timm(name: str, use_test_size: bool):
    pretrained_cfg = timm.models.get_pretrained_cfg(name).to_dict()
    settings = timm.data.resolve_data_config(pretrained_cfg=pretrained_cfg, use_test_size=use_test_size)
    transform: Transform = timm.data.create_transform(**settings)
    preprocess = Preprocess.from_timm(pretrained_cfg)
    for path in PHOTOS + SMALL:
        expected = transform(as_timm_opens_it(path)).numpy()
        # `open_image` scales sixteen bits, on purpose; Pillow, and so timm, makes all but the darkest white.
        picture = as_timm_opens_it(path) if path.name == "sixteen.png" else open_image(path, orient=False)
        output = preprocess(picture, use_test_size=use_test_size)
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6, err_msg=path.name)


@pytest.mark.parametrize("crop_pct", [0.5, 0.875, 1.0, 1.2])
@pytest.mark.parametrize("size", [(32, 32), (97, 131), (131, 97), (64, 200)], ids=str)
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_every_mode_crop_and_filter_is_timms(crop_mode: Any, size: tuple[int, int], crop_pct: float):
    pictures = {path.name: open_image(path) for path in SMALL}
    for interpolation in ("bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"):
        preprocess = Preprocess(input_size=size, crop_pct=crop_pct, crop_mode=crop_mode, interpolation=interpolation)
        transform: Transform = timm.data.create_transform(
            (3, *size),
            crop_pct=crop_pct,
            crop_mode=crop_mode,
            interpolation=interpolation,
            mean=preprocess.mean,
            std=preprocess.std,
        )
        for name, picture in pictures.items():
            expected = transform(picture).numpy()
            np.testing.assert_allclose(
                preprocess(picture), expected, rtol=0, atol=1e-6, err_msg=f"{interpolation} {name}"
            )


def test_what_a_config_leaves_out_is_timms_default():
    settings = timm.data.resolve_data_config(pretrained_cfg={"num_classes": 10})
    default = Preprocess.from_timm({})
    assert default.to_timm() == {
        key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()
    }


def test_timm_accepts_what_to_timm_writes():
    preprocess = Preprocess(input_size=(64, 96), test_input_size=(80, 80), test_crop_pct=1.0, crop_mode="border")
    config = timm.models.PretrainedCfg(**preprocess.to_timm())
    settings = timm.data.resolve_data_config(pretrained_cfg=config.to_dict(), use_test_size=True)
    assert tuple(settings["input_size"]) == (3, 80, 80)
    assert settings["crop_pct"] == 1.0
    assert settings["crop_mode"] == "border"
