"""`nfnet-eqx classify`: what is on pictures."""

import json as json_format
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float32
from PIL import Image
from tqdm import tqdm

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import replacing
from nfnet_eqx.checkpoints import CONFIG_NAME, RUN_NAME, Prediction, predict
from nfnet_eqx.cli._draw import MOST_CLASSES, MOST_PICTURES, draw_predictions, missing_glyphs
from nfnet_eqx.cli._text import name, pad, printable, width
from nfnet_eqx.images import SUFFIXES, Preprocess, check_file, open_image
from nfnet_eqx.zoo import from_pretrained

# The checkpoint that ships with the package.
DEFAULT_MODEL = "nfnet_cifar10"

# What is kept of each picture until the sheet is drawn: twice what it shows.
_THUMBNAIL = (600, 450)

# Of the characters that the sheet's font lacks, the message names so many.
_MOST_MISSING = 20

_log = logging.getLogger(__name__)


def classify(
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")],
    *,
    model: str = DEFAULT_MODEL,
    top: int = 5,
    json: bool = False,
    save: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None,
) -> None:
    """Print the most probable classes of each picture. A photo with an orientation tag (EXIF) is turned upright first.

    Example:
        nfnet-eqx classify examples/images --top 3 --save sheet.png

    Args:
        images: pictures, or folders of pictures.
        model: a bundled checkpoint, a folder, or a Hub id such as timm/dm_nfnet_f0.dm_in1k.
        top: how many classes of each picture; all of them where there are fewer.
        json: print JSON instead of a table.
        save: also draw the pictures with their classes to this PNG.

    Raises:
        InputError: a picture, the model or the file to save to cannot be used; nothing is printed or written then.
    """
    paths = _pictures(images)
    if save is not None:
        _check_save(save, paths)
    _check_files(paths)
    checkpoint = from_pretrained(model)
    faults, thumbnails = [], []
    inputs = _inputs(paths, checkpoint.preprocess, faults, None if save is None else thumbnails)
    running = predict(checkpoint.model, inputs, checkpoint.labels, top=top)
    predictions = list(tqdm(running, total=len(paths), unit="picture", leave=False, disable=None))
    _stop_at(faults)
    if save is not None:
        _save_sheet(save, thumbnails, [path.name for path in paths], predictions)
    print(_as_json(str(checkpoint.source), paths, predictions) if json else _as_table(paths, predictions))


def _pictures(images: tuple[Path, ...]) -> list[Path]:
    """The named pictures and those in the named folders, in order."""
    if not images:
        raise InputError("no picture given; name pictures or a folder of pictures")
    paths: list[Path] = []
    for image in images:
        if image.is_dir():
            inside = sorted(path for path in image.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
            if not inside:
                if any((image / name).is_file() for name in (CONFIG_NAME, RUN_NAME)):
                    raise InputError(f"{image}: is a checkpoint, not a folder of images; give it as --model")
                raise InputError(f"{image}: no picture in this folder ({', '.join(sorted(SUFFIXES))})")
            paths += inside
        else:
            paths.append(image)
    return paths


def _check_save(save: Path, paths: list[Path]) -> None:
    """Refuse before the work what could not be written after it."""
    if save.suffix.lower() != ".png":
        raise InputError(f"--save {save}: the sheet is a PNG; end its name in .png")
    if save.is_dir() or not save.absolute().parent.is_dir():
        raise InputError(f"--save {save}: is a folder, or its folder does not exist; name a file in an existing folder")
    if len(paths) > MOST_PICTURES:
        raise InputError(f"--save {save}: a sheet shows at most {MOST_PICTURES} pictures, not {len(paths)}")
    if any(path.exists() and save.exists() and os.path.samefile(save, path) for path in paths):
        raise InputError(f"--save {save}: is one of the pictures and would be overwritten; choose another name")


def _check_files(paths: list[Path]) -> None:
    """Refuse files that cannot be images before the model is loaded, which takes longer than to look at them.

    Where one cannot, all are opened once, so that everything that is wrong is named.
    """
    if _faults(check_file, paths):
        _stop_at(_faults(open_image, paths))


def _faults(look: Callable[[Path], object], paths: list[Path]) -> list[str]:
    faults = []
    for path in paths:
        try:
            look(path)
        except InputError as error:
            faults.append(str(error))
    return faults


def _inputs(
    paths: list[Path], preprocess: Preprocess, faults: list[str], thumbnails: list[Image.Image] | None
) -> Iterator[Float32[np.ndarray, "3 h w"]]:
    """The network's inputs, one after the other, so that no image is decoded twice and none is kept whole.

    Args:
        paths: the images.
        preprocess: of the checkpoint.
        faults: takes what is wrong. After the first, no input is made, but all images are still looked at.
        thumbnails: takes what the sheet needs of each image, if there is to be one.
    """
    for path in paths:
        try:
            image = open_image(path)
        except InputError as error:
            faults.append(str(error))
            continue
        try:
            made = preprocess(image)
        except InputError as error:
            faults.append(f"{path}: {error}")
            continue
        if thumbnails is not None:
            image.thumbnail(_THUMBNAIL)
            thumbnails.append(image)
        if not faults:
            yield made


def _stop_at(faults: list[str]) -> None:
    if faults:
        raise InputError("; ".join(faults))


def _save_sheet(save: Path, thumbnails: list[Image.Image], titles: list[str], predictions: list[list[Prediction]]):
    sheet = draw_predictions(thumbnails, titles, predictions)
    with replacing(save) as unfinished:
        sheet.save(unfinished, format="PNG", optimize=True)
    drawn = [prediction.label for classes in predictions for prediction in classes[:MOST_CLASSES]]
    missing = missing_glyphs([*titles, *drawn])
    if missing:
        more = f" and {len(missing) - _MOST_MISSING:,} more" if len(missing) > _MOST_MISSING else ""
        _log.warning("%s: drawn as boxes, since the font has no glyphs for %s%s", save, missing[:_MOST_MISSING], more)


def _as_json(model: str, paths: list[Path], predictions: list[list[Prediction]]) -> str:
    pictures = [
        {"image": str(path), "classes": [prediction._asdict() for prediction in classes]}
        for path, classes in zip(paths, predictions, strict=True)
    ]
    return json_format.dumps({"model": model, "pictures": pictures}, indent=2)


def _as_table(paths: list[Path], predictions: list[list[Prediction]]) -> str:
    """A line for each class, the picture's name in front of its first."""
    files = [printable(path.name) for path in paths]
    shown = {prediction.label: name(prediction.label) for classes in predictions for prediction in classes}
    wide_files, wide_labels = max(map(width, files)), max(map(width, shown.values()))
    lines = []
    for file, classes in zip(files, predictions, strict=True):
        for i, (label, probability) in enumerate(classes):
            first = pad(file if i == 0 else "", wide_files)
            lines.append(f"{first}  {pad(shown[label], wide_labels)}  {100 * probability:6.2f} %")
    return "\n".join(lines)
