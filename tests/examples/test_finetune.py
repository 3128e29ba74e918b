"""The fine-tuning example compares both arms, here on a few digits."""

import importlib.util
import re
from pathlib import Path

import pytest

import nfnet_eqx as nfx

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("finetune", ROOT / "examples" / "finetune.py")
assert spec is not None and spec.loader is not None
finetune = importlib.util.module_from_spec(spec)
spec.loader.exec_module(finetune)


@pytest.mark.slow
def test_both_arms_are_trained_on_the_same_pictures_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = finetune.Options(out=tmp_path, data=Path("digits"), pictures=96, epochs=1, batch_size=16)
    finetune.main(options)
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row[:12].strip() for row in rows] == ["fine-tuned", "from scratch"]
    assert all(re.search(r"\d+\.\d\d %\s+\d+\.\d\d to \d+\.\d\d", row) for row in rows), rows
    runs = sorted((tmp_path / "digits-96").glob("*-rate-*"))
    assert [run.name.split("-rate")[0] for run in runs] == ["fine-tuned", "from-scratch"]
    assert [nfx.from_pretrained(run / "checkpoint").labels for run in runs] == [tuple(map(str, range(10)))] * 2
