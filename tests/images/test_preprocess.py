"""Preprocessing: equal to timm's (frozen outputs), to DeepMind's resize (jax), and safe with any config."""

import hashlib
import json
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import PIL
import pytest
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.images import Preprocess, open_image

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "preprocess"
PHOTOS = sorted((ROOT / "examples" / "images").glob("*.jpg"))
PROVENANCE = json.loads((DATA / "provenance.json").read_text())
CASES = list(enumerate(PROVENANCE["cases"]))


def case_id(case: tuple[int, dict[str, Any]]) -> str:
    return f"{case[1]['name']}-{case[1]['picture']}-{'test' if case[1]['test'] else 'train'}"


@pytest.fixture(scope="module")
def references() -> dict[str, np.ndarray]:
    with np.load(DATA / "references.npz") as file:
        return dict(file)


def test_the_reference_files_are_those_that_were_made():
    assert {name: hashlib.sha256((DATA / name).read_bytes()).hexdigest() for name in PROVENANCE["sha256"]} == (
        PROVENANCE["sha256"]
    )


def as_timm_opens_it(path: Path) -> Path | Image.Image:
    """Where `open_image` differs, on purpose: it scales sixteen bits and turns a photo upright."""
    if path.name not in ("sixteen.png", "turned.png"):
        return path
    with Image.open(path) as image:
        converted = image.convert("RGB")
    converted.info = {}
    return converted


@pytest.mark.parametrize("case", CASES, ids=map(case_id, CASES))
def test_the_output_is_that_of_timm(case: tuple[int, dict[str, Any]], references: dict[str, np.ndarray]):
    index, expected = case
    preprocess = Preprocess.from_timm(expected["config"])
    output = preprocess(as_timm_opens_it(DATA / expected["picture"]), use_test_size=expected["test"])
    assert output.dtype == np.float32
    assert output.flags.c_contiguous
    assert list(output.shape) == expected["shape"]
    assert output.shape[1:] == preprocess.size(use_test_size=expected["test"])
    # Pillow 12 and 13 themselves round differently, by one grey level, where a picture is made smaller.
    same_pillow = PIL.__version__ == PROVENANCE["versions"]["pillow"]
    atol = 1e-6 if same_pillow else 1e-6 + 1 / 255 / min(preprocess.std)
    step = expected["step"]
    np.testing.assert_allclose(output[:, ::step, ::step], references[str(index)], rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("name", "size"), [("chelsea.jpg", (192, 192)), ("german_shepherd.jpg", (256, 256)), ("macaw.jpg", (97, 131))]
)
def test_the_deepmind_resize_is_that_of_jax_without_antialiasing(name: str, size: tuple[int, int]):
    photo = Image.open(ROOT / "examples" / "images" / name)
    if name == "macaw.jpg":
        photo = photo.transpose(Image.Transpose.ROTATE_90)
    margin = 32
    resized = jax.image.resize(
        jnp.asarray(np.asarray(photo), jnp.float32), (size[0] + margin, size[1] + margin, 3), "cubic", antialias=False
    )
    half = margin // 2
    expected = np.asarray(resized)[half : half + size[0], half : half + size[1]]
    assert expected.min() < 0 or expected.max() > 255, "the photo does not show that nothing is clipped"

    grey_levels = Preprocess(input_size=size, resize="deepmind", mean=(0.0,) * 3, std=(1 / 255,) * 3)
    np.testing.assert_allclose(grey_levels(photo).transpose(1, 2, 0), expected, rtol=0, atol=1e-3)
    normalised = Preprocess(input_size=size, resize="deepmind")
    mean, std = np.asarray(normalised.mean), np.asarray(normalised.std)
    np.testing.assert_allclose(
        normalised(photo).transpose(1, 2, 0), (expected / 255 - mean) / std, rtol=0, atol=1e-3 / 255 / std.min()
    )


def test_the_deepmind_resize_ignores_what_only_timm_needs():
    photo = Image.open(PHOTOS[0])
    one = Preprocess(resize="deepmind", input_size=(64, 64))
    other = Preprocess(resize="deepmind", input_size=(64, 64), crop_pct=0.5, crop_mode="border", interpolation="box")
    np.testing.assert_array_equal(one(photo), other(photo))


@pytest.mark.parametrize("resize", ["timm", "deepmind"])
def test_a_path_a_picture_and_an_array_give_the_same(resize: Any):
    preprocess = Preprocess(input_size=(64, 64), resize=resize)
    path = DATA / "landscape.png"
    picture = Image.open(path)
    expected = preprocess(path)
    for image in (str(path), picture, np.asarray(picture), np.asarray(picture).astype(np.uint8)[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(preprocess(image), expected, err_msg=type(image).__name__)
    grey = np.asarray(picture.convert("L"))
    np.testing.assert_array_equal(preprocess(grey), preprocess(np.repeat(grey[..., None], 3, 2)))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray):
    with pytest.raises(InputError, match=r"uint8 of shape \(height, width, 3\)"):
        Preprocess()(array)


def test_sixteen_bits_give_what_their_eight_give():
    # Made from grey.png, each level times 257.
    np.testing.assert_array_equal(Preprocess()(DATA / "sixteen.png"), Preprocess()(DATA / "grey.png"))


@pytest.mark.parametrize("resize", ["timm", "deepmind"])
def test_a_photo_is_upright_unless_it_was_opened_otherwise(resize: Any):
    preprocess = Preprocess(input_size=(32, 32), resize=resize, crop_mode="squash")
    with Image.open(DATA / "turned.png") as tagged:
        lying = tagged.convert("RGB")
        lying.info = {}
        upright = lying.transpose(Image.Transpose.ROTATE_270)
        for image in (DATA / "turned.png", (DATA / "turned.png").read_bytes(), tagged, tagged.convert("RGB")):
            np.testing.assert_array_equal(preprocess(image), preprocess(upright))
    np.testing.assert_array_equal(preprocess(open_image(DATA / "turned.png", orient=False)), preprocess(lying))
    np.testing.assert_array_equal(preprocess(open_image(DATA / "turned.png")), preprocess(upright))


def test_deepminds_evaluation_is_said_once():
    assert Preprocess.deepmind(192, 256) == Preprocess(
        input_size=(192, 192),
        test_input_size=(256, 256),
        crop_pct=192 / 224,
        test_crop_pct=256 / 288,
        crop_mode="squash",
        resize="deepmind",
    )
    assert Preprocess.deepmind(64).size() == (64, 64)


def test_one_mean_for_all_channels_is_that_mean_for_each():
    photo = Image.open(PHOTOS[0])
    one = Preprocess(mean=(0.5,), std=(0.25,), crop_mode="border")
    three = Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3, crop_mode="border")
    np.testing.assert_array_equal(one(photo), three(photo))
    with pytest.raises(InputError, match="4 values"):
        Preprocess(mean=(0.5,) * 4, std=(0.5,) * 4)(photo)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)], ids=str)
def test_a_picture_like_a_thread_is_resized_or_refused_but_never_blown_up(mode: Any, shape: tuple[int, int]):
    thread = Image.new("RGB", shape)
    preprocess = Preprocess(crop_mode=mode)
    if mode == "squash":
        assert preprocess(thread).shape == (3, 224, 224)
    else:
        with pytest.raises(InputError, match="too long and thin"):
            preprocess(thread)
    assert Preprocess(resize="deepmind")(thread).shape == (3, 224, 224)


@pytest.mark.parametrize("index", range(0, 28, 2), ids=lambda i: CASES[i][1]["name"])
def test_the_published_settings_survive_the_way_to_timm_and_back(index: int):
    config = CASES[index][1]["config"]
    preprocess = Preprocess.from_timm(config)
    assert Preprocess.from_timm(preprocess.to_timm()) == preprocess
    written = preprocess.to_timm()
    for key, value in config.items():
        assert written[key] == (list(value) if isinstance(value, list) else value)


SIZES = st.tuples(st.integers(8, 2048), st.integers(8, 2048))
CROPS = st.floats(0.25, 2)


@hypothesis.given(
    size=SIZES,
    test_size=st.none() | SIZES,
    crop_pct=CROPS,
    test_crop_pct=st.none() | CROPS,
    crop_mode=st.sampled_from(["center", "squash", "border"]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"]),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.01, 1)] * 3),
    resize=st.sampled_from(["timm", "deepmind"]),
)
def test_any_settings_survive_json_and_timm(
    size: Any,
    test_size: Any,
    crop_pct: float,
    test_crop_pct: float | None,
    crop_mode: Any,
    interpolation: Any,
    mean: Any,
    std: Any,
    resize: Any,
):
    preprocess = Preprocess(
        input_size=size,
        test_input_size=test_size,
        crop_pct=crop_pct,
        test_crop_pct=test_crop_pct,
        crop_mode=crop_mode,
        interpolation=interpolation,
        mean=mean,
        std=std,
        resize=resize,
    )
    written = json.loads(json.dumps(preprocess.to_timm()))
    assert Preprocess.from_timm(written, resize=preprocess.resize) == preprocess


def test_missing_keys_and_nulls_take_timms_defaults():
    default = Preprocess(
        input_size=(224, 224),
        crop_pct=0.875,
        crop_mode="center",
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    assert Preprocess() == default
    assert Preprocess.from_timm({}) == default
    nulls = dict.fromkeys(["input_size", "test_input_size", "crop_pct", "test_crop_pct", "crop_mode", "mean", "std"])
    assert Preprocess.from_timm({**nulls, "num_classes": 10, "pool_size": [7, 7]}) == default


def test_the_test_size_is_the_default_and_the_training_size_is_asked_for():
    preprocess = Preprocess(input_size=(16, 24), test_input_size=(40, 48), crop_pct=0.5, test_crop_pct=1.0)
    photo = Image.open(PHOTOS[0])
    assert (preprocess.size(), preprocess.size(use_test_size=False)) == ((40, 48), (16, 24))
    np.testing.assert_array_equal(preprocess(photo), preprocess(photo, use_test_size=True))
    training = Preprocess(input_size=(16, 24), crop_pct=0.5)
    np.testing.assert_array_equal(preprocess(photo, use_test_size=False), training(photo))


def test_without_test_settings_the_test_size_is_the_training_size():
    preprocess = Preprocess(input_size=(40, 50), crop_pct=0.5)
    assert preprocess.size(use_test_size=True) == (40, 50)
    photo = Image.open(PHOTOS[0])
    np.testing.assert_array_equal(preprocess(photo, use_test_size=True), preprocess(photo, use_test_size=False))


def test_the_test_crop_is_used_even_at_the_training_size():
    photo = Image.open(PHOTOS[0])
    preprocess = Preprocess(input_size=(64, 64), crop_pct=0.9, test_crop_pct=1.0)
    np.testing.assert_array_equal(
        preprocess(photo, use_test_size=True), Preprocess(input_size=(64, 64), crop_pct=1.0)(photo)
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input_size", [3, 10**9, 10**9]),
        ("input_size", [3, 0, 224]),
        ("input_size", [3, 224]),
        ("input_size", 224),
        ("input_size", [3, 224.0, 224]),
        ("test_input_size", [3, True, 224]),
        ("test_input_size", "3,224,224"),
        ("crop_pct", 1e-9),
        ("crop_pct", -1),
        ("crop_pct", float("nan")),
        ("crop_pct", "0.9"),
        ("test_crop_pct", 100),
        ("crop_mode", "rrc"),
        ("crop_mode", ["squash"]),
        ("interpolation", "random"),
        ("mean", [0.5, "0.5", 0.5]),
        ("mean", 0.5),
        ("mean", [0.5, 0.5]),
        ("mean", {"r": 0.5}),
        ("mean", [1e30] * 3),
        ("std", [1e-40] * 3),
        ("std", [0.5, 0.0, 0.5]),
        ("std", [0.5, -1.0, 0.5]),
        ("std", [0.5, float("inf"), 0.5]),
    ],
)
def test_an_impossible_value_is_refused_by_name(key: str, value: Any):
    with pytest.raises(InputError, match=key):
        Preprocess.from_timm({key: value})


def test_all_faults_are_named_at_once():
    with pytest.raises(InputError) as error:
        Preprocess.from_timm({"crop_pct": 7, "crop_mode": "random", "std": [0]})
    faults = ("crop_pct must lie between 0.25 and 2, got 7", "crop_mode must be one of ", "std must lie between")
    assert all(fault in str(error.value) for fault in faults)
