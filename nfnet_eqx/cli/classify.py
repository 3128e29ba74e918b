"""`nfnet-eqx classify`: what is on pictures."""

import json as json_format
import os
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image
from tqdm import tqdm

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import replacing
from nfnet_eqx.checkpoints import Prediction
from nfnet_eqx.checkpoints import classify as classify_images
from nfnet_eqx.cli._draw import MOST_PICTURES, draw_predictions
from nfnet_eqx.images import SUFFIXES, open_image
from nfnet_eqx.zoo import from_pretrained

# The checkpoint that ships with the package.
DEFAULT_MODEL = "nfnet_cifar10"

# What is kept of each picture until the sheet is drawn: twice what it shows.
_THUMBNAIL = (600, 450)


def classify(
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")],
    *,
    model: str = DEFAULT_MODEL,
    top: int = 5,
    json: bool = False,
    save: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None,
) -> None:
    """Print the most probable classes of each picture.

    Example:
        nfnet-eqx classify examples/images --top 3 --save sheet.png

    Args:
        images: pictures, or folders of pictures.
        model: a bundled checkpoint, a folder, or a Hub id such as timm/dm_nfnet_f0.dm_in1k.
        top: how many classes of each picture.
        json: print JSON instead of a table.
        save: also draw the pictures with their classes to this PNG.

    Raises:
        InputError: a picture, the model or the file to save to cannot be used; nothing is printed or written then.
    """
    paths = _pictures(images)
    if save is not None:
        _check_save(save, paths)
    thumbnails = _look_at_all(paths, keep=save is not None)
    checkpoint = from_pretrained(model)
    running = classify_images(checkpoint.model, checkpoint.preprocess, checkpoint.labels, paths, top=top)
    predictions = list(tqdm(running, total=len(paths), unit="picture", leave=False, disable=None))
    if save is not None:
        sheet = draw_predictions(thumbnails, [_shown(path) for path in paths], predictions)
        with replacing(save) as unfinished:
            sheet.save(unfinished, format="PNG", optimize=True)
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


def _look_at_all(paths: list[Path], *, keep: bool) -> list[Image.Image]:
    """Open every picture once, so that a bad one is found before the model is loaded, and all bad ones are named."""
    faults, thumbnails = [], []
    for path in paths:
        try:
            picture = open_image(path)
        except InputError as error:
            faults.append(str(error))
            continue
        if keep:
            picture.thumbnail(_THUMBNAIL)
            thumbnails.append(picture)
    if faults:
        raise InputError("; ".join(faults))
    return thumbnails


def _as_json(model: str, paths: list[Path], predictions: list[list[Prediction]]) -> str:
    pictures = [
        {"image": str(path), "classes": [prediction._asdict() for prediction in classes]}
        for path, classes in zip(paths, predictions, strict=True)
    ]
    return json_format.dumps({"model": model, "pictures": pictures}, indent=2)


def _as_table(paths: list[Path], predictions: list[list[Prediction]]) -> str:
    """A line for each class, the picture's name in front of its first."""
    names = max(len(_shown(path)) for path in paths)
    labels = max(len(prediction.label) for classes in predictions for prediction in classes)
    lines = []
    for path, classes in zip(paths, predictions, strict=True):
        for i, (label, probability) in enumerate(classes):
            name = _shown(path) if i == 0 else ""
            lines.append(f"{name:{names}}  {label:{labels}}  {100 * probability:6.2f} %")
    return "\n".join(lines)


def _shown(path: Path) -> str:
    """The file's name without what a terminal would obey and without bytes that are no text."""
    return "".join(c if c.isprintable() else "?" for c in path.name)
