"""Pictures are made of any log and any matrix; what they show is read from the pixels."""

import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.train._plot import plot_confusion, plot_curves

BLUE, ORANGE, RED, GREY = (0x25, 0x63, 0xEB), (0xEA, 0x58, 0x0C), (0xDC, 0x26, 0x26), (0x73, 0x7C, 0x8A)
DARKEST = (0x17, 0x25, 0x54)


def run(steps: int, every: int = 5) -> list[dict]:
    records = []
    for step in range(1, steps + 1):
        loss, epoch = 2.3 / step, step / 10
        train = {"loss": loss, "top1": 100 - 90 / step, "learning_rate": 0.1, "epoch": epoch}
        records.append({"step": step, "split": "train"} | train)
        if step % every == 0:
            records.append({"step": step, "split": "eval", "loss": loss, "top1": 50.0, "top5": 90.0, "epoch": epoch})
    return records


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(file: Path, color: tuple[int, int, int]) -> int:
    return int((pixels(file) == color).all(-1).sum())


def test_curves_of_training_and_evaluation_are_drawn(tmp_path: Path):
    plot_curves(run(60), tmp_path / "curves.png", "a run")
    height, width, _ = pixels(tmp_path / "curves.png").shape
    assert (width, height) == (1600, 592)
    assert all(count(tmp_path / "curves.png", color) > 100 for color in (BLUE, ORANGE, GREY))
    assert count(tmp_path / "curves.png", RED) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_a_loss_that_is_not_finite_is_left_out_and_marked(tmp_path: Path):
    records = run(60)
    records[40] |= {"loss": math.nan, "grad_norm": math.inf}
    records[41] |= {"loss": math.inf, "top1": math.nan}
    plot_curves(records, tmp_path / "curves.png", "a run")
    assert count(tmp_path / "curves.png", RED) > 100
    assert count(tmp_path / "curves.png", BLUE) > 100


def test_a_run_whose_every_loss_is_not_finite_is_drawn(tmp_path: Path):
    plot_curves([record | {"loss": math.nan} for record in run(8)], tmp_path / "curves.png", "a run")
    assert count(tmp_path / "curves.png", RED) > 100


def test_an_explosion_does_not_flatten_the_rest(tmp_path: Path):
    """On a linear scale all but the last points would lie on one row of pixels."""
    records = run(60, every=100)
    records[-1]["loss"] = 1e9
    plot_curves(records, tmp_path / "curves.png", "a run")
    loss = (pixels(tmp_path / "curves.png")[100:, :590] == BLUE).all(-1)
    rows = np.unique(np.nonzero(loss[:, :480])[0])
    assert rows.max() - rows.min() > 30, rows


values = st.floats(0, 10) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e30])


@settings(max_examples=6)
@given(
    rows=st.lists(st.tuples(st.integers(0, 10**7), st.sampled_from(["train", "eval"]), values, values), min_size=1),
    has_epoch=st.booleans(),
)
def test_no_log_breaks_the_picture(rows: list, has_epoch: bool, tmp_path_factory: pytest.TempPathFactory):
    file = tmp_path_factory.mktemp("run") / "curves.png"
    records = [{"step": step, "split": split, "loss": loss, "top1": top1} for step, split, loss, top1 in rows]
    if has_epoch:
        records = [record | {"epoch": record["step"] / 1000} for record in records]
    plot_curves(records, file, "any")
    assert count(file, (255, 255, 255)) > 100_000


def test_a_title_is_text_and_not_mathematics(tmp_path: Path):
    plot_curves(run(3), tmp_path / "curves.png", r"cost \frac{1} in $ and 猫, " + "long " * 100)


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_the_learning_rate_of_every_step_is_drawn_if_it_is_known(tmp_path: Path, unit: str):
    """A warm-up between two records is no straight line from one to the other: the peak shows."""
    rates = np.where(np.arange(100) < 50, np.arange(100) / 50, 0.0).astype(np.float32)
    records = [{"step": step, "split": "train", "loss": 1.0, "learning_rate": 0.0} for step in (1, 100)]
    records = [record | ({"epoch": record["step"] / 10} if unit == "epoch" else {}) for record in records]
    heights = []
    for name, known in (("logged", None), ("known", rates)):
        plot_curves(records, tmp_path / f"{name}.png", "a run", learning_rate=known)
        line = (pixels(tmp_path / f"{name}.png")[100:, 1270:] == GREY).all(-1)
        heights.append(int(line.any(1).sum()))
    assert heights[1] > heights[0] + 200, heights


def test_a_letter_that_no_font_has_is_a_box_and_said_and_warnings_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    names = ["Vögel – oiseaux", "Ζώα", "Животные"]
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings_of_ours = warnings.filters
        plot_confusion(np.eye(3, dtype=np.int64), names, tmp_path / "covered.png")
        assert caplog.text == ""
        plot_confusion(np.eye(3, dtype=np.int64), [*names[:2], "ꔀ猫"], tmp_path / "boxes.png")
        assert warnings.filters is warnings_of_ours
    assert "boxes stand for '猫' (U+732B), 'ꔀ' (U+A500)" in caplog.text
    assert warnings.filters == before


def test_an_empty_log_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no metrics"):
        plot_curves([], tmp_path / "curves.png", "a run")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [1, 2, 10, 13, 41, 300, 1000])
def test_a_perfect_classifier_is_a_dark_diagonal(tmp_path: Path, classes: int):
    names = [f"class ${index}" for index in range(classes)]
    plot_confusion(np.eye(classes, dtype=np.int64) * 50, names, tmp_path / "confusion.png")
    shown = pixels(tmp_path / "confusion.png")
    shown = shown[:, : int(shown.shape[1] * 0.85)]  # without the bar of colours
    rows, columns = np.nonzero((np.abs(shown.astype(int) - DARKEST) < 12).all(-1))
    assert len(rows) > 500
    if classes > 2:
        correlation = np.corrcoef(rows, columns)[0, 1]
        assert correlation > 0.98, correlation


def test_a_rare_mistake_among_a_thousand_classes_shows(tmp_path: Path):
    confusion = np.eye(1000, dtype=np.int64) * 40
    plot_confusion(confusion, None, tmp_path / "before.png")
    confusion[800, 200] = 10
    plot_confusion(confusion, None, tmp_path / "after.png")
    changed = (pixels(tmp_path / "before.png") != pixels(tmp_path / "after.png")).any(-1)
    assert changed[200:].sum() >= 9, "the title changes, and at least 3 x 3 pixels of the matrix must"


def test_shares_are_of_the_row_and_a_class_without_pictures_stays_empty(tmp_path: Path):
    few, many = np.asarray([[1, 3], [0, 0]]), np.asarray([[100, 300], [0, 0]])
    plot_confusion(few, ["a", "b"], tmp_path / "few.png")
    plot_confusion(many, ["a", "b"], tmp_path / "many.png")
    same = (pixels(tmp_path / "few.png") == pixels(tmp_path / "many.png")).all(-1)
    assert same[60:].all(), "only the title, which counts the pictures, may differ"


def test_names_that_do_not_fit_the_matrix_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="3 names for a confusion matrix of 2 classes"):
        plot_confusion(np.eye(2, dtype=np.int64), ["a", "b", "c"], tmp_path / "confusion.png")
    assert not any(tmp_path.iterdir())


def test_pictures_are_drawn_without_pyplot(tmp_path: Path):
    plot_curves(run(3), tmp_path / "curves.png", "a run")
    assert "matplotlib.pyplot" not in sys.modules
