"""How many training pictures a second one core makes, from JPEGs like ImageNet's.

    python examples/bench_pipeline.py

The JPEGs (500 x 375, some 100 KB as ImageNet's are) are cut from the photos beside this file. The process is bound to
one core, and its processor time is what is divided by: the wall clock would measure the neighbours too.
"""

import dataclasses
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from nfnet_eqx.data import Augment, decode, open_source, train_stream

PHOTOS = Path(__file__).parent / "images"


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is measured.

    Attributes:
        pictures: how many JPEGs are made.
        batches: how many batches are timed, after one that is not.
        batch_size: pictures in a batch.
        image_size: their height and width.
        json: print a line of JSON instead of the table.
    """

    pictures: int = 1024
    batches: int = 16
    batch_size: int = 64
    image_size: int = 224
    json: bool = False


def main(bench: Bench) -> None:
    """Measures decoding alone, and the stream without and with four layers of RandAugment."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        size = write_jpegs(Path(folder), bench.pictures)
        source = open_source(Path(folder), "train")
        examples = [source[index] for index in range(len(source))]
        start = time.process_time()
        for example in examples:
            decode(example)
        rates = {"decode": len(examples) / (time.process_time() - start)}
        for name, augment in (
            ("decode, crop, resize, flip", Augment()),
            ("the same and 4 layers of RandAugment", Augment(randaugment_layers=4, randaugment_magnitude=5)),
        ):
            stream = train_stream(source, augment, image_size=bench.image_size, batch_size=bench.batch_size, seed=0)
            next(stream)
            # The first has others in its wake that are half done; as many are when the last one comes.
            start = time.process_time()
            for _ in itertools.islice(stream, bench.batches):
                pass
            rates[name] = bench.batches * bench.batch_size / (time.process_time() - start)
            stream.close()
    if bench.json:
        print(json.dumps({name: round(rate) for name, rate in rates.items()}))
        return
    print(f"one core, {bench.pictures:,} JPEGs of 500 x 375 ({size / 1000:.0f} KB), to {bench.image_size} px")
    for name, rate in rates.items():
        print(f"{name:40}{rate:6.0f} img/s")


def write_jpegs(folder: Path, number: int) -> float:
    """Random cuts of the photos, in two class folders; returns their mean size in bytes."""
    rng = np.random.default_rng(0)
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    sizes = []
    for index in range(number):
        photo = photos[index % len(photos)]
        width = min(photo.width, photo.height * 4 / 3) * rng.uniform(0.9, 1)
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - width * 3 / 4)
        cut = photo.resize((500, 375), box=(left, top, left + width, top + width * 3 / 4))
        path = folder / f"class_{index % 2}" / f"{index:04}.jpg"
        path.parent.mkdir(exist_ok=True)
        cut.save(path, quality=98)
        sizes.append(path.stat().st_size)
    return float(np.mean(sizes))


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))
