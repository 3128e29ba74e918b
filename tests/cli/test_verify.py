"""`nfnet-eqx verify`: when two checkpoints agree, and how it is said that they do not."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_eqx import Checkpoint, NFNet, NFNetConfig, Preprocess, named_parameters, replace_head, save_pretrained
from nfnet_eqx.checkpoints._tensors import load_tensors
from nfnet_eqx.cli._main import main
from nfnet_eqx.convert._deepmind import convert_numerics
from nfnet_eqx.models._names import with_parameters

DEEPMIND = Path(__file__).resolve().parents[1] / "data" / "deepmind" / "T0_dill0.3.3_p3.npz"
CONFIG = NFNetConfig(depths=(1, 1), widths=(16, 16), stem_widths=(8,), stem_strides=(2,), stage_strides=(1, 2),
                     group_size=4, num_classes=5, num_features=16)  # fmt: skip
CONV = "stages.0.0.conv2.weight"


def save(model: NFNet, folder: Path) -> str:
    preprocess = Preprocess(input_size=(32, 32))
    save_pretrained(Checkpoint(model=model, preprocess=preprocess, architecture="tiny"), folder)
    return str(folder)


@pytest.fixture(scope="module")
def model() -> NFNet:
    fresh = NFNet(CONFIG, key=jax.random.key(0))
    # The last gain of every branch starts at 0 and would hide the branch.
    return with_parameters(fresh, {n: x + 1 if n.endswith("gain") else x for n, x in named_parameters(fresh).items()})


@pytest.fixture
def saved(model: NFNet, tmp_path: Path) -> Callable[..., str]:
    """A function that saves the network, with one tensor changed where it is told so, and returns the folder."""

    def save_changed(folder: str, name: str = CONV, change: Callable[[jax.Array], Any] = lambda x: x) -> str:
        parameters = named_parameters(model)
        return save(with_parameters(model, parameters | {name: change(parameters[name])}), tmp_path / folder)

    return save_changed


def test_equal_checkpoints_agree_to_the_bit(saved: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", saved("a"), saved("b")]) == 0
    out = capsys.readouterr().out
    assert "weights: all 46 tensors are equal to the bit" in out
    assert "feature 2" in out and "logits" in out
    assert "not compared with timm: " in out or "A - timm" in out


def test_what_differs_is_shown_the_worst_first_and_the_exit_status_is_2(
    saved: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = saved("a"), saved("b", change=lambda x: x.at[0, 0, 0, 0].add(0.5))
    assert main(["verify", a, b]) == 2
    out, err = capsys.readouterr()
    assert "weights: 45 of 46 tensors are equal to the bit" in out
    assert f"{CONV}  " in out and "8 x 4 x 3 x 3" in out and "0.5" in out
    last = err.splitlines()[-1]
    assert last.startswith(f"nfnet-eqx: {a} and {b} differ: 1 of 46 tensors, the worst, {CONV}, by ")
    assert "outputs" in last


def test_of_many_tensors_the_ten_worst_are_shown(
    model: NFNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = named_parameters(model)
    changed = {name: array + 0.1 * (i + 1) for i, (name, array) in enumerate(parameters.items())}
    other = with_parameters(model, changed)
    assert main(["verify", save(model, tmp_path / "a"), save(other, tmp_path / "b")]) == 2
    out = capsys.readouterr().out
    assert "weights: 0 of 46 tensors are equal to the bit" in out
    assert "... and 36 more, which differ less" in out


def test_a_difference_within_the_tolerance_is_shown_and_agrees(
    saved: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = saved("a"), saved("b", change=lambda x: x * (1 + 1e-4))
    assert main(["verify", a, b, "--tolerance", "1e-3"]) == 0
    assert f"{CONV}  " in capsys.readouterr().out
    assert main(["verify", a, b]) == 2


def test_a_hidden_tensor_counts_although_no_output_shows_it(
    saved: Callable[..., str], model: NFNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gain = "stages.0.0.conv3.gain"
    hidden = named_parameters(model) | {gain: jnp.zeros_like(named_parameters(model)[gain])}
    other = hidden | {CONV: hidden[CONV] * 2}
    a = save(with_parameters(model, hidden), tmp_path / "a")
    b = save(with_parameters(model, other), tmp_path / "b")
    assert main(["verify", a, b, "--json"]) == 2
    out = json.loads(capsys.readouterr().out)
    assert [stage["max_abs"] for stage in out["outputs"]] == [0.0] * 4
    assert out["faults"] == [f"1 of 46 tensors, the worst, {CONV}, by 5.0e-01"]


def test_json_lists_everything(saved: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = saved("a"), saved("b", "head.fc.bias", lambda x: x + 1)
    assert main(["verify", a, b, "--json"]) == 2
    out = json.loads(capsys.readouterr().out)
    assert out["a"] == {"source": a, "architecture": "tiny", "numerics": "timm"}
    assert (out["agree"], out["tolerance"], out["settings_that_differ"]) == (False, 5e-6, {})
    assert (out["tensors"], out["tensors_equal_to_the_bit"]) == (46, 45)
    assert out["tensors_that_differ"] == [
        {"name": "head.fc.bias", "shape": [5], "same_bits": False, "max_abs": 1.0, "scale": 1.0, "relative": 1.0}
    ]
    assert [stage["name"] for stage in out["outputs"]] == ["feature 0", "feature 1", "feature 2", "logits"]
    # Adding 1 to a logit rounds it: by half a unit in the last place of a number below 2.
    assert [stage["max_abs"] for stage in out["outputs"]] == [0.0, 0.0, 0.0, pytest.approx(1.0, abs=2**-23)]
    assert isinstance(out["timm"], str) or len(out["timm"]) == 4


def test_outputs_that_overflow_are_no_agreement(saved: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    a = saved("a", "head.fc.weight", lambda x: jnp.full_like(x, 3e38))
    assert main(["verify", a, a, "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["outputs"][-1]["max_abs"] is None
    assert "1 of 4 outputs, the worst, logits, by nan" in err


def test_between_numerics_only_the_outputs_count(
    model: NFNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {name: np.asarray(array) for name, array in named_parameters(model).items()}
    # A filter of small variance: there the two functions treat the same weights differently.
    tensors[CONV] = np.concatenate([tensors[CONV][:1] * np.float32(0.02), tensors[CONV][1:]])
    theirs = dataclasses.replace(CONFIG, numerics="deepmind")
    config, converted = convert_numerics(theirs, tensors, "timm")
    a = save(load_tensors(theirs, tensors, source="a"), tmp_path / "a")
    b = save(load_tensors(config, converted, source="b"), tmp_path / "b")
    assert main(["verify", a, b, "--tolerance", "2e-3"]) == 0
    out = capsys.readouterr().out
    assert "numerics is 'deepmind' in A and 'timm' in B" in out
    assert "stages.0.0.conv2.gain  " in out
    assert main(["verify", a, b]) == 2
    assert "tensors" not in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("classes", "head.fc.weight is (5, 16) in the first and (7, 16) in the second"),
        ("architecture", "is tiny and "),
        ("absent", "no_such"),
        ("picture", "is neither a pickle nor an npz archive"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_nothing_is_printed(
    model: NFNet, other: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = save(model, tmp_path / "a")
    b = {
        "classes": lambda: save(replace_head(model, 7, key=jax.random.key(1)), tmp_path / "b"),
        "architecture": lambda: str(DEEPMIND),
        "absent": lambda: "./no_such",
        "picture": lambda: str(Path(__file__)),
    }[other]()
    assert main(["verify", a, b]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if not line.endswith(" ...")] == [err.splitlines()[-1]]
    assert err.splitlines()[-1].startswith("nfnet-eqx: ") and reason in err


@pytest.mark.parametrize("tolerance", ["-1", "nan", "inf"])
def test_an_impossible_tolerance_is_refused(tolerance: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "a", "b", "--tolerance", tolerance]) == 2
    assert "--tolerance" in capsys.readouterr().err
