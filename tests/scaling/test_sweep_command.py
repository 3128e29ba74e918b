"""`nfnet-eqx scaling sweep`: what it prints, and refuses."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nfnet_eqx.cli import main
from tests.scaling.sweeping import write_images, write_toml


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_toml(tmp_path / "study.toml", write_images(tmp_path / "images"), epochs="[0.5, 1]")


def test_a_plan_is_a_table_and_computes_nothing(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["scaling", "sweep", str(study), "--plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "family", "parameters", "FLOPs/image", "runs", "FLOPs", "share"]
    assert lines[1].split()[:2] == ["w8", "NFNet"] and lines[1].split()[4] == "4"
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[4].startswith("8 runs, ") and lines[4].endswith(" training FLOPs")
    assert {path.name for path in tmp_path.iterdir()} == {"study.toml", "images"}

    assert main(["scaling", "sweep", str(study), "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["flops"] == sum(run["flops"] for run in plan["runs"]) == sum(row["flops"] for row in plan["models"])
    assert plan["left"] == {"runs": 8, "flops": plan["flops"], "seconds": None}
    assert plan["runs"][0] == {
        "run": "w8-e0.5-lr0.4-s0", "model": "w8", "epochs": 0.5, "learning_rate": 0.4, "seed": 0, "steps": 2,
        "images": 32, "flops": 32 * plan["models"][0]["flops_per_image"],
    }  # fmt: skip


def test_a_misspelt_field_is_one_line_and_exit_2(study: Path, capsys: pytest.CaptureFixture[str]):
    study.write_text(study.read_text().replace("learning_rates", "learning_rate"))
    assert main(["scaling", "sweep", str(study)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "study.toml: learning_rate: there is no such field; did you mean learning_rates?" in error


def test_what_is_compiled_is_kept_with_the_sweep_but_in_a_program_s_process(tmp_path: Path):
    code = (
        "import os, jax, pathlib, nfnet_eqx.cli._process as p; "
        "p._owned = {}; p.keep_compiled(pathlib.Path('compiled')); print(jax.config.jax_compilation_cache_dir)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    for owned, expected in ((True, str(tmp_path / "compiled" / socket.gethostname())), (False, "None")):
        command = [sys.executable, "-c", code.format(owned)]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.stdout.strip() == expected, result.stderr


def test_the_help_shows_a_file(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["scaling", "sweep", "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "[[models]]" in printed and "--plan" in printed and "learning_rates = [0.2, 0.4, 0.8]" in printed
