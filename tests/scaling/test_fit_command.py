"""`nfnet-eqx scaling fit`: words, JSON, a file that can be read again, and one line for what cannot be fitted."""

import csv
import json
from pathlib import Path

import pytest

from nfnet_eqx.cli import main
from nfnet_eqx.scaling import Point, read_fit
from tests.scaling.laws import grid_runs


def table(folder: Path, points: list[Point]) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["n", "cost", "nats"])
        rows.writerows([point.parameters, point.flops, point.loss] for point in points)
    return path


NAMED = ["--parameters", "n", "--compute", "cost", "--loss", "nats", "--samples", "100"]


def test_any_table_is_fitted_and_the_report_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, save = table(tmp_path, grid_runs()), tmp_path / "fit.json"
    arguments = ["scaling", "fit", str(path), "--form", "parametric", *NAMED, "--flops-per-parameter", "6"]
    assert main([*arguments, "--save", str(save)]) == 0
    words = capsys.readouterr().out
    for part in ("alpha", "N_opt ~ C^", "sha256", "C = 6 N D", "36 points", "starts reach", "held out", "delta 0.001"):
        assert part in words
    assert main([*arguments, "--json"]) == 0
    printed, saved = json.loads(capsys.readouterr().out), json.loads(save.read_text())
    fit = read_fit(save)
    assert saved.pop("samples") and printed == saved
    assert printed["law"]["alpha"] == fit.law.alpha and len(fit.samples) == fit.convergence.bootstrap_converged
    assert {"formula", "units", "objective", "data", "rows", "convergence", "intervals", "held_out"} <= set(printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--form", "parametric"], "no images"),
        (["--family", "ViT"], "no row is of it"),
        (["--fix-e", "100"], "below the smallest loss"),
        (["--save", "missing/fit.json"], "its folder does not exist"),
    ],
)
def test_what_cannot_be_fitted_is_one_line_and_exit_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["scaling", "fit", str(table(tmp_path, grid_runs())), *NAMED, *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and message in err and len(err.splitlines()) == 1


def test_a_saved_fit_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "fit.json"
    path.write_text('{"form": "cubic"}')
    with pytest.raises(ValueError, match="fit.json: not a fit"):
        read_fit(path)
