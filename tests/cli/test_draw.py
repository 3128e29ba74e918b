"""The contact sheet."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints._classify import Prediction
from nfnet_eqx.cli._draw import MOST_PICTURES, draw_predictions, missing_glyphs

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "images" / "chelsea.jpg"
PREDICTIONS = [Prediction("cat", 0.9), Prediction("dog", 0.09), Prediction("a frog", 0.01)]
RED = (250, 10, 10)


def draw(*images: Image.Image, title: str = "cat.jpg", predictions: list[Prediction] = PREDICTIONS) -> Image.Image:
    return draw_predictions(images, [title] * len(images), [predictions] * len(images))


def share_of(color: tuple[int, int, int], sheet: Image.Image) -> float:
    return float((np.abs(np.asarray(sheet).astype(int) - color).max(-1) < 40).mean())


@pytest.mark.parametrize(
    ("count", "columns", "rows"),
    [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1), (5, 5, 1), (6, 3, 2), (8, 4, 2), (9, 3, 3), (11, 4, 3), (20, 4, 5)],
)
def test_cards_stand_in_rows_of_three_to_five(count: int, columns: int, rows: int):
    one = draw(Image.new("RGB", (40, 30), RED))
    sheet = draw(*[Image.new("RGB", (40, 30), RED)] * count)
    card_width, card_height = one.width - 2 * 28, one.height - 2 * 28
    assert sheet.mode == "RGB"
    assert sheet.size == (columns * card_width + (columns - 1) * 24 + 56, rows * card_height + (rows - 1) * 24 + 56)
    assert share_of(RED, sheet) == pytest.approx(
        count * share_of(RED, one) * one.width * one.height / sheet.width / sheet.height, rel=1e-6
    )


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (2000, 100), (100, 2000), (1, 1), (7, 5)], ids=str)
def test_a_picture_of_any_shape_fills_the_frame(size: tuple[int, int]):
    sheet = draw(Image.new("RGB", size, RED))
    assert sheet.size == draw(Image.new("RGB", (400, 300))).size
    middle = sheet.getpixel((sheet.width // 2, 28 + 225 // 2))
    assert max(abs(a - b) for a, b in zip(middle, RED, strict=True)) < 3  # type: ignore[arg-type]


def test_a_panorama_is_shown_to_its_ends():
    panorama = Image.new("RGB", (1200, 200), (128, 128, 128))
    panorama.paste((0, 255, 0), (0, 0, 60, 200))
    panorama.paste((0, 0, 255), (1140, 0, 1200, 200))
    sheet = draw(panorama)
    assert share_of((0, 255, 0), sheet) > 0
    assert share_of((0, 0, 255), sheet) > 0


def test_the_bar_is_as_long_as_the_class_is_probable():
    blue = (37, 99, 235)
    black = Image.new("RGB", (40, 30))
    bars = {p: share_of(blue, draw(black, predictions=[Prediction("cat", p)])) for p in (0.0, 0.25, 0.5, 1.0)}
    assert bars[0.0] == 0
    assert bars[0.25] == pytest.approx(bars[1.0] / 4, rel=0.05)
    assert bars[0.5] == pytest.approx(bars[1.0] / 2, rel=0.05)


@pytest.mark.parametrize(
    "label",
    ["", "x" * 500, "an endless name " * 40, "two\nlines", "größer, Ελλάδα, 猫", "\ud800 \u202e", "x" * 7_000_000],
    ids=lambda label: ascii(label[:20]),
)
def test_a_label_or_title_of_any_length_keeps_to_its_card(label: str):
    black = Image.new("RGB", (40, 30))
    sheet = draw(black, title=label, predictions=[Prediction(label, 0.5)])
    empty = draw(black, title="", predictions=[Prediction("", 0.5)])
    assert sheet.size == empty.size
    # Nothing is written on the card's own margins.
    for column in (28 + 8, sheet.width - 28 - 8):
        strip = (column, 28 + 225, column + 1, sheet.height - 40)
        np.testing.assert_array_equal(np.asarray(sheet.crop(strip)), np.asarray(empty.crop(strip)))


def test_at_most_ten_classes_are_drawn():
    black = Image.new("RGB", (40, 30))
    many = [Prediction(f"class {i}", 0.001) for i in range(1000)]
    assert draw(black, predictions=many).size == draw(black, predictions=many[:10]).size


def test_pictures_of_any_mode_are_drawn():
    photo = Image.open(PHOTO)
    draw(*[photo.convert(mode) for mode in ("L", "RGBA", "P", "CMYK", "1")])


@pytest.mark.parametrize("count", [0, MOST_PICTURES + 1])
def test_no_picture_or_too_many_are_refused(count: int):
    with pytest.raises(InputError, match=f"1 to {MOST_PICTURES} pictures, not {count}"):
        draw(*[Image.new("RGB", (4, 3))] * count)


@pytest.mark.parametrize("text", ["Vögel – oiseaux, łódź, Đặng", "Ελλάδα, γάτα", "Птицы, кошка", "a \u202e\n\x1b", ""])
def test_latin_greek_and_cyrillic_have_glyphs(text: str):
    assert missing_glyphs([text]) == ""


def test_characters_without_a_glyph_are_named():
    assert missing_glyphs(["日本語", "a 猫", "語"]) == "".join(sorted("日本語猫"))


def test_letters_are_drawn_as_themselves():
    sheets = [draw(Image.new("RGB", (4, 3)), predictions=[Prediction(letter, 0.5)]) for letter in "öоłλ猫本"]
    pixels = [sheet.tobytes() for sheet in sheets]
    assert len(set(pixels[:4])) == 4
    assert pixels[4] == pixels[5], "two boxes"
