"""The published points: each has a source, its multiply-adds are the library's, and the figure can be drawn."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "imagenet_pareto"
spec = importlib.util.spec_from_file_location("pareto", FOLDER / "pareto.py")
assert spec is not None and spec.loader is not None
pareto = importlib.util.module_from_spec(spec)
sys.modules["pareto"] = pareto
spec.loader.exec_module(pareto)
RESULTS = pareto.read(FOLDER / "points.csv")


def test_every_rows_multiply_adds_are_counted_within_half_a_percent():
    assert pareto.check(RESULTS) == []


def test_a_wrong_figure_is_told():
    import dataclasses

    (fault,) = pareto.check([dataclasses.replace(RESULTS[0], macs=round(1.01 * RESULTS[0].macs))])
    assert "NFNet-F0 @192" in fault


def test_every_row_says_where_it_is_from_and_every_speed_on_which_card():
    assert all(result.source for result in RESULTS)
    for line in (FOLDER / "points.csv").read_text().splitlines()[1:]:
        assert ("RTX 4090" in line) == (",RTX 4090," in line)


def test_accuracies_and_parameters_are_those_of_the_catalog():
    catalog = tomllib.loads((ROOT / "zoo" / "catalog.toml").read_text())["checkpoint"]
    known = {
        (checkpoint["architecture"], published["size"], published["top1"]): checkpoint["parameters"]
        for checkpoint in catalog
        for published in checkpoint["published"]
    }
    rows = [r for r in RESULTS if "timm" in r.source and not r.model.startswith("DeiT3")]
    assert len(rows) == 22
    for row in rows:
        assert known[row.architecture, row.image_size, row.top1] == row.parameters, row.model


def test_the_figure_is_drawn_with_the_two_kinds_of_training_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pareto.main(tmp_path / "pareto.png")
    assert f"all {len(RESULTS)} rows" in capsys.readouterr().out
    with Image.open(tmp_path / "pareto.png") as image:
        assert image.width > 1000
    assert {result.data for result in RESULTS} == {
        "ImageNet-1k", "ImageNet-21k", "JFT-300M", "JFT-3B", "JFT-4B", "WebLI",
    }  # fmt: skip
