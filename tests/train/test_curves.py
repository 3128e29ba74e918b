"""The curves of a run are there while it goes on, and never in its way."""

import time
from pathlib import Path

import numpy as np
import optax
import pytest

from nfnet_eqx.train import _curves
from nfnet_eqx.train._curves import Curves
from nfnet_eqx.train._metrics import Log

SCHEDULE = optax.linear_schedule(0.0, 1.0, 10)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[float]]]:
    """The last step of each drawing, and the learning rates in it."""
    calls = []
    monkeypatch.setattr(
        _curves,
        "plot_curves",
        lambda metrics, file, title, *, learning_rate: calls.append((metrics[-1]["step"], learning_rate.tolist())),
    )
    return calls


def open_log(folder: Path) -> Log:
    curves = Curves(folder, folder / "curves.png", "a run", schedule=SCHEDULE, total_steps=20)
    return Log(folder, resume_step=0, tensorboard=False, total_steps=20, batch_size=8, writers=[curves])


def test_they_are_drawn_at_once_at_each_evaluation_once_a_minute_and_at_the_end(
    tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch
):
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with open_log(tmp_path) as log:
        for step in range(1, 7):
            log.write(step, "train", {"loss": 1.0})
            if step == 3:
                log.write(step, "eval", {"loss": 1.0})
            now += 61 if step == 4 else 1
    assert [step for step, _ in drawn] == [1, 3, 5, 6]


def test_the_learning_rate_is_that_of_every_step_made_not_of_the_lines(tmp_path: Path, drawn: list):
    with open_log(tmp_path) as log:
        log.write(12, "train", {"loss": 1.0, "learning_rate": 1.0})
    ((_, rates),) = drawn
    assert np.allclose(rates, np.minimum(np.arange(12) / 10, 1))


def test_a_run_without_a_line_has_none(tmp_path: Path, drawn: list, caplog: pytest.LogCaptureFixture):
    with open_log(tmp_path):
        pass
    assert drawn == [] and caplog.text == ""


@pytest.mark.parametrize("damage", ["folder", "log"])
def test_what_prevents_the_drawing_is_said_once_and_ends_nothing(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    if damage == "folder":
        (tmp_path / "curves.png").mkdir()
    with open_log(tmp_path) as log:
        for step in range(1, 4):
            if damage == "log":
                with (tmp_path / "metrics.jsonl").open("ab") as file:
                    file.write(b"damaged\n")
            log.write(step, "eval", {"loss": 1.0})
    assert caplog.text.count("not drawn") == 1
