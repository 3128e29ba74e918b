"""RandAugment: each operation against its definition, worked out another way."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from nfnet_eqx.data import _randaugment as ra
from tests.pipeline.conftest import PHOTOS

OPERATIONS = {operation.__name__: operation for operation in ra._OPERATIONS}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.asarray(Image.open(PHOTOS[0]).convert("RGB").resize((64, 48))).copy()


class Fixed(np.random.Generator):
    """A generator that always draws the same."""

    def __init__(self, value: float):
        super().__init__(np.random.PCG64(0))
        self.value = value

    def random(self) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.value

    def integers(self, high: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return int(self.value * high)


PLUS, MINUS = Fixed(0.25), Fixed(0.75)


def apply(name: str, pixels: np.ndarray, level: float, rng: np.random.Generator = PLUS) -> np.ndarray:
    before = pixels.copy()
    result = OPERATIONS[name](pixels, level, rng)
    np.testing.assert_array_equal(pixels, before, err_msg=f"{name} writes into its input")
    assert result.dtype == np.uint8
    assert result.shape == pixels.shape
    return result


def assert_close(result: np.ndarray, expected: np.ndarray, atol: int = 1):
    np.testing.assert_allclose(result.astype(int), np.asarray(expected).astype(int), rtol=0, atol=atol)


def test_there_are_the_sixteen_operations_of_the_published_code():
    assert len(OPERATIONS) == 16


def test_auto_contrast_and_equalize_are_those_of_pillow(pixels: np.ndarray):
    picture = Image.fromarray(pixels // 2 + 20)
    assert_close(apply("_auto_contrast", np.asarray(picture), 0.5), ImageOps.autocontrast(picture))
    large = np.asarray(Image.open(PHOTOS[0]).convert("RGB"))
    assert_close(apply("_equalize", large, 0.5), ImageOps.equalize(Image.fromarray(large)), atol=0)


@pytest.mark.parametrize("name", ["_auto_contrast", "_equalize"])
def test_a_picture_of_one_colour_stays(name: str):
    flat = np.full((8, 8, 3), (7, 0, 255), np.uint8)
    np.testing.assert_array_equal(apply(name, flat, 0.5), flat)


def test_invert_posterize_and_solarize_are_those_of_pillow(pixels: np.ndarray):
    picture = Image.fromarray(pixels)
    np.testing.assert_array_equal(apply("_invert", pixels, 0.5), ImageOps.invert(picture))
    np.testing.assert_array_equal(apply("_posterize", pixels, 0.5), ImageOps.posterize(picture, 2))
    np.testing.assert_array_equal(apply("_solarize", pixels, 0.5), ImageOps.solarize(picture, 128))


def test_posterize_and_solarize_change_less_at_a_higher_magnitude(pixels: np.ndarray):
    for name in ("_posterize", "_solarize"):
        changes = [np.abs(apply(name, pixels, level).astype(int) - pixels).mean() for level in (0.3, 0.5, 1.0)]
        assert changes == sorted(changes, reverse=True), name
    np.testing.assert_array_equal(apply("_solarize", pixels, 1.0), pixels)
    assert not apply("_posterize", pixels, 0.0).any()


def test_solarize_add_brightens_the_dark_half(pixels: np.ndarray):
    expected = np.where(pixels < 128, np.minimum(pixels.astype(int) + 55, 255), pixels)
    np.testing.assert_array_equal(apply("_solarize_add", pixels, 0.5), expected)


@pytest.mark.parametrize("level", [0.0, 0.2, 0.5, 1.0])
def test_color_brightness_and_sharpness_are_those_of_pillow(pixels: np.ndarray, level: float):
    picture, factor = Image.fromarray(pixels), 1.8 * level + 0.1
    # Pillow truncates where OpenCV rounds.
    assert_close(apply("_color", pixels, level), ImageEnhance.Color(picture).enhance(factor), atol=2)
    assert_close(apply("_brightness", pixels, level), ImageEnhance.Brightness(picture).enhance(factor))
    smooth = pixels.copy()
    smooth[1:-1, 1:-1] = np.asarray(picture.filter(ImageFilter.SMOOTH))[1:-1, 1:-1]
    expected = np.clip(smooth + factor * (pixels.astype(float) - smooth), 0, 255)
    assert_close(apply("_sharpness", pixels, level), expected, atol=2)


def test_contrast_moves_from_the_grey_of_the_published_code(pixels: np.ndarray):
    grey = 48 * 64 // 256
    assert_close(apply("_contrast", pixels, 0.25), grey + 0.55 * (pixels.astype(float) - grey))
    large = np.full((300, 300, 3), 100, np.uint8)
    assert_close(apply("_contrast", large, 0.25), np.full_like(large, round(255 + 0.55 * (100 - 255))))


@pytest.mark.parametrize(("name", "axis"), [("_translate_x", 1), ("_translate_y", 0)])
def test_a_translation_is_by_pixels_and_leaves_grey(name: str, axis: int, pixels: np.ndarray):
    shift = 20
    moved = np.moveaxis(apply(name, pixels, 0.2), axis, 0)
    original = np.moveaxis(pixels, axis, 0)
    np.testing.assert_array_equal(moved[shift:], original[:-shift])
    assert (moved[:shift] == 128).all()
    back = np.moveaxis(apply(name, pixels, 0.2, MINUS), axis, 0)
    np.testing.assert_array_equal(back[:-shift], original[shift:])
    assert (back[-shift:] == 128).all()


@pytest.mark.parametrize(("name", "axis"), [("_shear_x", 1), ("_shear_y", 0)])
def test_a_shear_moves_each_line_by_its_distance_from_the_first(name: str, axis: int, pixels: np.ndarray):
    sheared = apply(name, pixels, 1.0)
    lines, original = (np.moveaxis(x, 1 - axis, 0) for x in (sheared, pixels))
    np.testing.assert_array_equal(lines[0], original[0])
    np.testing.assert_array_equal(lines[10][3:], original[10][:-3])
    assert (lines[10][:3] == 128).all()


def test_a_rotation_turns_around_the_centre(pixels: np.ndarray):
    square = pixels[:, :48]
    for rng, sign in ((PLUS, 1), (MINUS, -1)):
        expected = Image.fromarray(square).rotate(sign * 30, fillcolor=(128, 128, 128))
        # Nearest neighbours: at a tie the two libraries take different ones.
        differs = np.any(apply("_rotate", square, 1.0, rng) != np.asarray(expected), axis=-1)
        assert differs.mean() < 0.05
    np.testing.assert_array_equal(apply("_rotate", square, 0.0), square)


def test_cutout_covers_a_square_of_twice_its_size_in_pixels():
    black = np.zeros((224, 224, 3), np.uint8)
    cut = apply("_cutout", black, 0.5, Fixed(0.5))
    assert (cut[92:132, 92:132] == 128).all()
    assert (cut == 128).sum() == 3 * 40 * 40
    assert (apply("_cutout", black, 1.0, Fixed(0.0)) == 128).sum() == 3 * 40 * 40  # at a corner a quarter of 80 x 80


def test_operations_are_drawn_uniformly_and_all_applied(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    drawn = []

    def spy(index: int):
        return lambda pixels, level, rng: drawn.append((index, level)) or pixels

    monkeypatch.setattr(ra, "_OPERATIONS", tuple(map(spy, range(16))))
    rng = np.random.default_rng(0)
    for _ in range(1000):
        ra.randaugment(pixels, rng, layers=4, magnitude=5)
    assert len(drawn) == 4000
    assert {level for _, level in drawn} == {0.5}
    counts = np.bincount([index for index, _ in drawn], minlength=16)
    assert (np.abs(counts - 250) < 5 * np.sqrt(250)).all(), counts


def test_the_same_generator_gives_the_same_picture(pixels: np.ndarray):
    first, second = (ra.randaugment(pixels, np.random.default_rng(3), layers=4, magnitude=7) for _ in range(2))
    np.testing.assert_array_equal(first, second)
