"""The scaling study: its plan is what it says, and in small it runs from the TOML file to the comparison."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from nfnet_eqx.scaling import plan_sweep, read_points, read_sweep

STUDY = Path(__file__).parents[2] / "examples" / "scaling_study"


def test_the_study_is_as_wide_as_it_says():
    study = read_sweep(STUDY / "study.toml")
    families = Counter(model.name.partition("-")[0] for model in study.models)
    assert families == {"nfnet": 5, "vit": 4}
    assert min(study.epochs) == 0.25 and max(study.epochs) == 8 and len(study.epochs) >= 5
    for model in study.models:
        rates = sorted(study.rates(model, 1))
        assert len(rates) == 3 and [b / a for a, b in zip(rates, rates[1:], strict=False)] == [2, 2], model.name


@pytest.mark.slow
def test_the_study_in_small_runs_to_the_comparison(tmp_path: Path):
    planned = plan_sweep(read_sweep(STUDY / "smoke.toml"))
    # The installed command, and of it the one beside the interpreter of the tests.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(
        ["sh", str(STUDY / "study.sh"), str(STUDY / "smoke.toml"), str(tmp_path / "out")],
        cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    points = read_points(tmp_path / "out" / "results.jsonl")
    assert len(points) == len(planned.runs) and {point.status for point in points} == {"done"}
    assert {p.name for p in (tmp_path / "out").glob("*.png")} >= {"loss.png", "learning-rates.png", "compare.png"}
    assert "the same loss" in ran.stdout
