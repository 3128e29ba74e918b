"""A contact sheet: photos with their most probable classes below, as one picture for a README, a report or a card."""

import bisect
import functools
import io
import math
from collections.abc import Iterable, Sequence
from importlib import resources

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Prediction
from nfnet_eqx.cli._text import printable

MOST_PICTURES = 100
MOST_CLASSES = 10

# Pixels. A card is a photo, its title, and a row for each class: name, share, bar.
_CARD_WIDTH = 300
_PHOTO_HEIGHT = 225
_GAP = 24
_MARGIN = 28
_INSET = 16
_RADIUS = 12
_KEPT = 0.87  # the least share of a photo that cutting it to the frame must keep
_TITLE_HEIGHT = 38
_ROW_HEIGHT = 33
_BAR_HEIGHT = 6

_PAGE = (244, 246, 249)
_CARD = (255, 255, 255)
_EDGE = (222, 227, 234)
_TITLE = (115, 124, 138)
_FIRST_TEXT = (17, 24, 39)
_TEXT = (88, 97, 112)
_FIRST_BAR = (37, 99, 235)
_BAR = (168, 190, 227)
_TRACK = (236, 239, 244)

_LONGEST_TEXT = 200  # characters; no card is wide enough for as many

# Edges are drawn this many times larger and scaled down: Pillow's shapes have no antialiasing.
_OVERSAMPLING = 4


def draw_predictions(
    images: Sequence[Image.Image], titles: Sequence[str], predictions: Sequence[Sequence[Prediction]]
) -> Image.Image:
    """Draw each picture over its classes and their probabilities.

    Args:
        images: the pictures, of any size and shape.
        titles: what stands below each, such as its file name.
        predictions: the classes of each, the most probable one first; ten are drawn.

    Returns:
        The sheet, RGB.

    Raises:
        InputError: there is no picture, or too many for one sheet.
    """
    if not 1 <= len(images) <= MOST_PICTURES:
        raise InputError(f"a sheet shows 1 to {MOST_PICTURES} pictures, not {len(images)}; draw several sheets")
    cards = [_draw_card(*card) for card in zip(images, titles, predictions, strict=True)]
    columns = _columns(len(cards))
    width, height = _CARD_WIDTH, max(card.height for card in cards)
    rows = math.ceil(len(cards) / columns)
    page_size = (
        2 * _MARGIN + columns * width + (columns - 1) * _GAP,
        2 * _MARGIN + rows * height + (rows - 1) * _GAP,
    )
    sheet = Image.new("RGB", page_size, _PAGE)
    for i, card in enumerate(cards):
        row, column = divmod(i, columns)
        left = _MARGIN + column * (width + _GAP)
        top = _MARGIN + row * (height + _GAP)
        _paste_rounded(sheet, Image.new("RGB", (width + 2, height + 2), _EDGE), (left - 1, top - 1), _RADIUS + 1)
        whole = Image.new("RGB", (width, height), _CARD)
        whole.paste(card)
        _paste_rounded(sheet, whole, (left, top), _RADIUS)
    return sheet


def _columns(cards: int) -> int:
    """Three to five a row, as few holes in the last row as that allows."""
    if cards <= 4:
        return cards
    return min((4, 3, 5), key=lambda columns: -cards % columns)


def _draw_card(image: Image.Image, title: str, predictions: Sequence[Prediction]) -> Image.Image:
    predictions = predictions[:MOST_CLASSES]
    height = _PHOTO_HEIGHT + _TITLE_HEIGHT + len(predictions) * _ROW_HEIGHT + _INSET // 2
    card = Image.new("RGB", (_CARD_WIDTH, height), _CARD)
    card.paste(_frame(image.convert("RGB")))
    draw = ImageDraw.Draw(card)
    left, right = _INSET, _CARD_WIDTH - _INSET
    title = _shorten(title, _font(13), right - left, keep_end=True)
    draw.text((left, _PHOTO_HEIGHT + 24), title, _TITLE, _font(13), anchor="ls")
    for i, (label, probability) in enumerate(predictions):
        top = _PHOTO_HEIGHT + _TITLE_HEIGHT + i * _ROW_HEIGHT
        color, font = (_FIRST_TEXT, _font(16)) if i == 0 else (_TEXT, _font(15))
        share = f"{100 * probability:.1f} %"
        room = right - left - font.getlength(share) - 12
        draw.text((left, top + 14), _shorten(label, font, room), color, font, anchor="ls")
        draw.text((right, top + 14), share, color, font, anchor="rs")
        _draw_bar(card, (left, top + 20, right, top + 20 + _BAR_HEIGHT), probability, _FIRST_BAR if i == 0 else _BAR)
    return card


def _frame(image: Image.Image) -> Image.Image:
    """The picture in a frame of one shape: cut to it where that loses little, else whole on a soft copy of itself."""
    size = (_CARD_WIDTH, _PHOTO_HEIGHT)
    cut = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    shape, frame_shape = image.width / image.height, size[0] / size[1]
    if min(shape / frame_shape, frame_shape / shape) >= _KEPT:
        return cut
    backdrop = ImageEnhance.Color(cut.filter(ImageFilter.GaussianBlur(24))).enhance(0.6)
    backdrop = ImageEnhance.Brightness(backdrop).enhance(0.9)
    photo = ImageOps.contain(image, size, Image.Resampling.LANCZOS)
    backdrop.paste(photo, ((size[0] - photo.width) // 2, (size[1] - photo.height) // 2))
    return backdrop


def _draw_bar(card: Image.Image, box: tuple[int, int, int, int], share: float, color: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    height = bottom - top
    _paste_rounded(card, Image.new("RGB", (right - left, height), _TRACK), (left, top), height // 2)
    filled = round((right - left) * min(max(share, 0.0), 1.0))
    if filled:
        _paste_rounded(card, Image.new("RGB", (max(filled, height), height), color), (left, top), height // 2)


def _paste_rounded(onto: Image.Image, image: Image.Image, at: tuple[int, int], radius: int) -> None:
    onto.paste(image, at, _rounded(image.size, radius))


@functools.lru_cache(maxsize=64)
def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask with smooth round corners."""
    width, height = size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), radius * _OVERSAMPLING, 255)
    return mask.resize(size, Image.Resampling.BOX)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans 2.35, which ships with the package: Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew, Arabic."""
    file = resources.files("nfnet_eqx.cli") / "fonts" / "DejaVuSans.ttf"
    return ImageFont.truetype(io.BytesIO(file.read_bytes()), size)


def missing_glyphs(texts: Iterable[str]) -> str:
    """The characters of these texts that the sheet's font has no glyph for, in order: they are drawn as boxes."""
    characters = set().union(*(text[:_LONGEST_TEXT] for text in texts))
    box = _drawn("\U0010ffff")  # no character, so that no font has it
    return "".join(sorted(c for c in characters if c.isprintable() and _drawn(c) == box))


def _drawn(character: str) -> bytes:
    canvas = Image.new("L", (64, 32))
    ImageDraw.Draw(canvas).text((16, 4), character, 255, _font(16))
    return canvas.tobytes()


def _shorten(text: str, font: ImageFont.FreeTypeFont, room: float, keep_end: bool = False) -> str:
    """The text, or as much of its start (or end) as fits, with an ellipsis."""
    # One character more than can be drawn tells that there is more; a label can have megabytes.
    text = text[-_LONGEST_TEXT - 1 :] if keep_end else text[: _LONGEST_TEXT + 1]
    text = printable(" ".join(text.split()))
    if len(text) <= _LONGEST_TEXT and font.getlength(text) <= room:
        return text

    def part(kept: int) -> str:
        return "…" + text[len(text) - kept :].lstrip() if keep_end else text[:kept].rstrip() + "…"

    lengths = range(min(len(text), _LONGEST_TEXT))
    return part(max(0, bisect.bisect_right(lengths, room, key=lambda kept: font.getlength(part(kept))) - 1))
