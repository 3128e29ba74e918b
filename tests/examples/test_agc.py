"""The AGC example runs both arms and draws them, here on digits and for a few steps."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("agc", ROOT / "examples" / "agc.py")
assert spec is not None and spec.loader is not None
agc = importlib.util.module_from_spec(spec)
spec.loader.exec_module(agc)


@pytest.mark.slow
def test_it_says_which_arm_diverged_and_draws_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "agc.png"
    agc.main(agc.Experiment(data=Path("digits"), picture=picture, rates=(50.0,), shown=50.0, steps=8, batch_size=32))
    _, row, last = capsys.readouterr().out.splitlines()[-3:]
    rate, *cells = row.split()
    assert rate == "50" and cells[-4:-1] == ["diverged", "at", "step"], row
    assert last.startswith(f"{picture}: ")
    with Image.open(picture) as drawn:
        assert drawn.width > 1000


def test_missing_data_is_one_line_that_says_how_to_get_them(tmp_path: Path):
    with pytest.raises(SystemExit, match="`make data` fetches CIFAR-10"):
        agc.main(agc.Experiment(data=tmp_path / "nowhere", picture=tmp_path / "agc.png"))
