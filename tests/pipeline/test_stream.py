"""The streams: a pure function of (seed, step) for any number of hosts, threads and workers; broken pictures."""

import logging
import subprocess
import sys
import threading
from collections.abc import Generator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import (
    Arrays,
    Augment,
    Batch,
    EvalBatch,
    ImageFolder,
    Source,
    check_readable,
    eval_stream,
    open_source,
    train_stream,
)

ROOT = Path(__file__).resolve().parents[2]
PLAIN = Augment(crop="none", flip=False)
FULL = Augment(randaugment_layers=2)


def take(stream: Generator[Batch, None, None], number: int) -> list[Batch]:
    batches = list(islice(stream, number))
    stream.close()
    return batches


def joined(batches: list[Batch]) -> Batch:
    return Batch(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def assert_equal(first: Batch, second: Batch):
    for field, one, other in zip(first._fields, first, second, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=field)


def identity(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((8, 8)), np.float32).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("hosts", "threads", "seed", "start"), [(2, 16, 0, 0), (4, 1, 2**32 - 1, 59), (4, 5, 7, 10_000_000), (8, 3, 1, 3)]
)
def test_the_global_batch_is_the_same_for_any_number_of_hosts_and_threads(
    hosts: int, threads: int, seed: int, start: int
):
    source = open_source(Path("digits"), "train")
    common = {"image_size": 12, "batch_size": 24, "seed": seed, "start": start}
    whole = take(train_stream(source, FULL, **common), 2)
    parts = [
        take(train_stream(source, FULL, **common, process_index=p, process_count=hosts, num_threads=threads), 2)
        for p in range(hosts)
    ]
    for step in range(2):
        assert_equal(joined([part[step] for part in parts]), whole[step])


@pytest.mark.slow  # each worker is a fresh interpreter
def test_the_stream_is_the_same_for_any_number_of_workers():
    source = open_source(Path("digits"), "train")
    common = {"image_size": 12, "batch_size": 48, "seed": 1, "start": 5}
    expected = take(train_stream(source, FULL, **common), 3)
    for workers in (1, 2):
        batches = take(train_stream(source, FULL, **common, num_workers=workers, num_threads=4), 3)
        for batch, other in zip(batches, expected, strict=True):
            assert_equal(batch, other)


def test_a_stream_that_starts_later_goes_on_as_an_unbroken_one():
    source = open_source(Path("digits"), "train")
    unbroken = take(train_stream(source, FULL, image_size=12, batch_size=10, seed=3), 8)
    resumed = take(train_stream(source, FULL, image_size=12, batch_size=10, seed=3, start=5), 3)
    for batch, expected in zip(resumed, unbroken[5:], strict=True):
        assert_equal(batch, expected)


def test_the_order_is_that_of_earlier_versions():
    """A run that is resumed under another Grain or NumPy must see the same pictures."""
    labels = np.arange(1000)
    source = Arrays(np.zeros((1000, 2, 2), np.uint8), labels)
    (first,) = take(train_stream(source, PLAIN, image_size=2, batch_size=6, seed=0), 1)
    assert first.label.tolist() == [297, 371, 706, 141, 935, 215]


def test_an_epoch_shows_every_picture_once_and_the_next_in_another_order(numbered: tuple[np.ndarray, np.ndarray]):
    batches = take(train_stream(Arrays(*numbered), PLAIN, image_size=8, batch_size=5, seed=0), 8)
    first, second = joined(batches[:4]), joined(batches[4:])
    for epoch in (first, second):
        assert sorted(epoch.label.tolist()) == list(range(20))
        np.testing.assert_array_equal(epoch.image, np.broadcast_to(epoch.label[:, None, None, None], (20, 8, 8, 3)))
        assert not epoch.broken.any()
    assert first.label.tolist() != second.label.tolist()


def test_another_seed_is_another_stream(numbered: tuple[np.ndarray, np.ndarray]):
    first, second = (
        take(train_stream(Arrays(*numbered), PLAIN, image_size=8, batch_size=20, seed=seed), 1)[0].label
        for seed in (0, 1)
    )
    assert first.tolist() != second.tolist()


def test_repeats_put_each_picture_so_often_into_a_batch_next_to_another(numbered: tuple[np.ndarray, np.ndarray]):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    augment = Augment(repeats=4, crop_area=(0.3, 0.6))
    batches = take(train_stream(Arrays(images, numbered[1]), augment, image_size=8, batch_size=16, seed=0), 5)
    for batch in batches:
        _, counts = np.unique(batch.label, return_counts=True)
        assert counts.tolist() == [4, 4, 4, 4]
        assert (batch.label[::2] != batch.label[1::2]).all(), "a picture would be mixed with itself"
        assert len(np.unique(batch.image.reshape(16, -1), axis=0)) == 16, "two repeats are the same"
    # An epoch of five batches has each picture of the twenty in one of them.
    assert sorted(np.unique(np.concatenate([np.unique(batch.label) for batch in batches]))) == list(range(20))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"batch_size": 10, "process_count": 4}, r"batch_size \(=10\) must be positive and divisible by the 4 hosts"),
        ({"batch_size": 0}, r"batch_size \(=0\)"),
        ({"process_index": 2, "process_count": 2}, r"process_index \(=2\) must be from 0 to 1"),
        ({"seed": -1}, r"seed \(=-1\)"),
        ({"augment": Augment(repeats=4), "batch_size": 12}, r"batch_size \(=12\) must be divisible by 8"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_anything_runs(
    arguments: dict, reason: str, numbered: tuple[np.ndarray, np.ndarray]
):
    with pytest.raises(InputError, match=reason):
        train_stream(Arrays(*numbered), **{"augment": PLAIN, "image_size": 8, "batch_size": 4, "seed": 0} | arguments)


def break_one(folder: Path) -> Path:
    broken = folder / "b" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    return broken


def test_a_broken_picture_is_skipped_and_counted(class_folder: Path, caplog: pytest.LogCaptureFixture):
    broken = break_one(class_folder)
    source = ImageFolder(class_folder)
    common = {"image_size": 16, "batch_size": 8, "seed": 0}
    with caplog.at_level(logging.WARNING):
        batches = take(train_stream(source, PLAIN, **common), 5)
    assert [batch.broken.sum() for batch in batches] == [1] * 5
    (message,) = [record.getMessage() for record in caplog.records if str(broken) in record.getMessage()]
    assert message.startswith(f"skipped: {broken}: is damaged")
    for step in range(2):
        parts = [
            take(train_stream(source, PLAIN, **common, start=step, process_index=p, process_count=4), 1)[0]
            for p in range(4)
        ]
        assert_equal(joined(parts), batches[step])


def test_the_next_good_picture_takes_the_place_of_a_broken_one(class_folder: Path):
    common = {"image_size": 16, "batch_size": 8, "seed": 0}
    before = take(train_stream(ImageFolder(class_folder), PLAIN, **common), 3)
    break_one(class_folder)
    after = take(train_stream(ImageFolder(class_folder), PLAIN, **common), 3)
    before, after = joined(before), joined(after)
    for position in range(23):
        source_position = position + after.broken[position]
        np.testing.assert_array_equal(after.image[position], before.image[source_position])
        assert after.label[position] == before.label[source_position]


def test_a_broken_picture_stops_the_run_where_the_user_says_so(class_folder: Path):
    broken = break_one(class_folder)
    stream = train_stream(ImageFolder(class_folder), PLAIN, image_size=16, batch_size=8, seed=0, on_broken="stop")
    with pytest.raises(InputError, match=r"b/1\.jpg: is damaged") as caught:
        next(stream)
    assert str(caught.value).startswith(str(broken))
    assert "\n" not in str(caught.value)


@pytest.mark.slow  # each worker is a fresh interpreter
def test_a_broken_picture_in_a_worker_is_named_and_stops_it(class_folder: Path, caplog: pytest.LogCaptureFixture):
    broken = break_one(class_folder)
    common = {"image_size": 16, "batch_size": 8, "seed": 0, "num_workers": 1}
    with caplog.at_level(logging.WARNING):
        batches = take(train_stream(ImageFolder(class_folder), PLAIN, **common), 2)
    assert [batch.broken.sum() for batch in batches] == [1, 1]
    assert len([record for record in caplog.records if str(broken) in record.getMessage()]) == 1
    stream = train_stream(ImageFolder(class_folder), PLAIN, **common, on_broken="stop")
    with pytest.raises(InputError, match=r"b/1\.jpg: is damaged"):
        next(stream)


def test_where_all_pictures_are_broken_it_ends_with_an_error(class_folder: Path):
    for path in class_folder.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    stream = train_stream(ImageFolder(class_folder), PLAIN, image_size=16, batch_size=8, seed=0)
    with pytest.raises(InputError, match=r"pictures: 16 pictures in a row cannot be read; the first: .*\.jpg"):
        next(stream)


def test_a_picture_that_vanishes_is_a_broken_one(class_folder: Path):
    source = ImageFolder(class_folder)
    (class_folder / "a" / "0.jpg").unlink()
    (batch,) = take(train_stream(source, PLAIN, image_size=16, batch_size=8, seed=0), 1)
    assert batch.broken.sum() == 1


def test_a_closed_stream_leaves_no_threads(numbered: tuple[np.ndarray, np.ndarray]):
    before = set(threading.enumerate())
    stream = train_stream(Arrays(*numbered), PLAIN, image_size=8, batch_size=4, seed=0)
    next(stream)
    started = set(threading.enumerate()) - before
    assert started
    stream.close()
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive(), thread


@pytest.mark.slow  # a fresh interpreter, and two workers
@pytest.mark.parametrize("workers", [0, 2])
def test_a_program_that_ends_without_closing_its_stream_ends_quietly(workers: int, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from nfnet_eqx.data import Augment, open_source, train_stream\n"
        "if __name__ == '__main__':\n"
        "    source = open_source(Path('digits'), 'train')\n"
        f"    arguments = dict(image_size=32, batch_size=64, seed=0, num_workers={workers})\n"
        "    stream = train_stream(source, Augment(), **arguments)\n"
        "    print(next(stream).image.shape)\n"
    )
    result = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "(64, 32, 32, 3)\n", "")


def evaluate(source: Source, **options: int) -> list[EvalBatch]:
    return list(eval_stream(source, identity, batch_size=8, **options))


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_evaluation_shows_each_picture_once_in_order_and_pads_the_last_batch(
    hosts: int, numbered: tuple[np.ndarray, np.ndarray]
):
    parts = [evaluate(Arrays(*numbered), process_index=p, process_count=hosts) for p in range(hosts)]
    assert [len(part) for part in parts] == [3] * hosts
    for part in parts:
        for batch in part:
            assert batch.image.shape == (8 // hosts, 3, 8, 8)
            assert batch.image.dtype == np.float32
            assert batch.label.dtype == np.int32
    labels = np.concatenate([part[step].label for step in range(3) for part in parts])
    images = np.concatenate([part[step].image for step in range(3) for part in parts])
    assert labels.tolist() == [*range(20), -1, -1, -1, -1]
    assert (images == np.maximum(labels, 0)[:, None, None, None]).all()


def test_a_broken_picture_has_no_label_in_evaluation(class_folder: Path, caplog: pytest.LogCaptureFixture):
    broken = break_one(class_folder)
    with caplog.at_level(logging.WARNING):
        (batch,) = evaluate(ImageFolder(class_folder))
    assert batch.label.tolist() == [0, 0, 0, 1, -1, 1, 2, 2]
    assert not batch.image[4].any()
    assert len([record for record in caplog.records if str(broken) in record.getMessage()]) == 1


def test_a_broken_picture_stops_evaluation_where_the_user_says_so(class_folder: Path):
    broken = break_one(class_folder)
    with pytest.raises(InputError, match="is damaged") as caught:
        list(eval_stream(ImageFolder(class_folder), identity, batch_size=8, on_broken="stop"))
    assert str(caught.value).startswith(str(broken))


def test_a_picture_that_the_transform_refuses_is_a_broken_one(numbered: tuple[np.ndarray, np.ndarray]):
    def refuse(image: Image.Image) -> np.ndarray:
        if image.getpixel((0, 0)) == (3, 3, 3):
            raise InputError("image: is too long and thin")
        return identity(image)

    batches = list(eval_stream(Arrays(*numbered), refuse, batch_size=20))
    assert batches[0].label.tolist() == [-1 if label == 3 else label for label in range(20)]
    with pytest.raises(InputError, match=r"arrays\[3\]: image: is too long and thin"):
        list(eval_stream(Arrays(*numbered), refuse, batch_size=20, on_broken="stop"))


def test_images_of_which_none_can_be_read_are_found_out_before_the_work(class_folder: Path):
    source = ImageFolder(class_folder)
    check_readable(source)
    paths = sorted(class_folder.rglob("*.jpg"))
    for path in paths[:-1]:
        path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    check_readable(source)  # one is enough
    paths[-1].write_bytes(b"")
    with pytest.raises(InputError, match=r"pictures: none of 8 images of 8 can be read; the first: .*a/0\.jpg"):
        check_readable(source)
    with pytest.raises(InputError, match="none of 3 images of 8 "):
        check_readable(source, most=3)
