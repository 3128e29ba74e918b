"""Crops, flips, and the record that configures them."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Augment
from nfnet_eqx.data._augment import _random_box, vary


def ramp(height: int, width: int) -> np.ndarray:
    """Rows are told by the first channel, columns by the second."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(height)[:, None], np.arange(width)
    return pixels


@hypothesis.given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    seed=st.integers(0, 2**32),
    area=st.sampled_from([(0.08, 1.0), (0.25, 0.5), (1.0, 1.0)]),
    ratio=st.sampled_from([(3 / 4, 4 / 3), (1.0, 1.0), (0.5, 0.6)]),
)
def test_a_random_box_lies_within_the_picture_and_the_bounds(
    height: int, width: int, seed: int, area: tuple[float, float], ratio: tuple[float, float]
):
    augment = Augment(crop_area=area, crop_ratio=ratio)
    top, left, h, w = _random_box(height, width, augment, np.random.default_rng(seed))
    assert top >= 0 and left >= 0 and h >= 1 and w >= 1 and top + h <= height and left + w <= width
    if (top, left, h, w) != (0, 0, height, width):
        # Sides are whole pixels: half a pixel more or less on each.
        assert (h + 1) * (w + 1) >= area[0] * height * width
        assert (h - 1) * (w - 1) <= area[1] * height * width
        assert (w - 1) / (h + 1) <= ratio[1] and (w + 1) / max(h - 1, 0.5) >= ratio[0]


def test_random_boxes_are_uniform_in_their_height_at_a_given_ratio():
    augment = Augment(crop_area=(0.25, 1.0), crop_ratio=(1.0, 1.0))
    rng = np.random.default_rng(0)
    heights = np.array([_random_box(100, 100, augment, rng)[2] for _ in range(5100)])
    counts = np.bincount(heights, minlength=101)[50:]
    assert counts.sum() == 5100, "a box is outside of the permitted heights"
    assert (np.abs(counts - 100) < 5 * 10).all(), counts


def test_a_box_that_never_fits_is_the_whole_picture():
    augment = Augment(crop_area=(0.9, 1.0), crop_ratio=(1.0, 1.0))
    assert _random_box(10, 400, augment, np.random.default_rng(0)) == (0, 0, 10, 400)


@pytest.mark.parametrize("crop", ["resized", "padded", "none"])
@pytest.mark.parametrize("shape", [(40, 60), (224, 224), (10, 7), (1, 1), (300, 20)])
def test_every_crop_gives_the_size_that_was_asked_for(crop: str, shape: tuple[int, int]):
    varied = vary(ramp(*(side % 256 for side in shape)), Augment(crop=crop), 32, np.random.default_rng(0))
    assert varied.shape == (32, 32, 3)
    assert varied.dtype == np.uint8


def test_a_padded_crop_is_a_shifted_cut_of_the_reflected_picture():
    pixels = ramp(32, 32)
    reflected = np.pad(pixels, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    cuts = {reflected[t : t + 32, x : x + 32].tobytes(): (t, x) for t in range(9) for x in range(9)}
    rng = np.random.default_rng(0)
    found = [cuts[vary(pixels, Augment(crop="padded", flip=False), 32, rng).tobytes()] for _ in range(1000)]
    assert len(set(found)) == 81


def test_no_crop_at_the_right_size_changes_nothing_but_the_side():
    pixels, rng = ramp(32, 32), np.random.default_rng(0)
    varied = [vary(pixels, Augment(crop="none"), 32, rng) for _ in range(400)]
    flipped = sum(np.array_equal(x, pixels[:, ::-1]) for x in varied)
    assert flipped + sum(np.array_equal(x, pixels) for x in varied) == 400
    assert 150 < flipped < 250


def test_a_smaller_size_is_a_mean_over_areas():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    varied = vary(pixels, Augment(crop="none", flip=False), 16, np.random.default_rng(0))
    expected = pixels.reshape(16, 4, 16, 4, 3).mean((1, 3))
    np.testing.assert_allclose(varied, expected, rtol=0, atol=0.51)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_area", (0.0, 1.0)),
        ("crop_area", (0.5, 1.5)),
        ("crop_area", (0.9, 0.1)),
        ("crop_ratio", (2.0, 1.0)),
        ("crop_ratio", (1.0, float("inf"))),
        ("crop_padding", -1),
        ("randaugment_layers", -1),
        ("randaugment_magnitude", 21.0),
        ("randaugment_magnitude", float("nan")),
        ("mixup", -0.1),
        ("repeats", 0),
    ],
)
def test_an_impossible_value_is_refused_by_name(field: str, value: object):
    with pytest.raises(InputError, match=f"Augment: {field} must ") as caught:
        Augment(**{field: value})
    assert repr(value) in str(caught.value)


def test_all_impossible_values_are_named_at_once():
    with pytest.raises(InputError, match="crop_padding must be 0 or more, got -1; repeats must be 1 or more, got 0"):
        Augment(crop_padding=-1, repeats=0)
