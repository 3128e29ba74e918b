"""What timm saves, we open: as it is, with other input channels, with other classes. And `verify` beside timm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfnet_eqx import Checkpoint, from_pretrained, named_parameters, save_pretrained
from nfnet_eqx.cli._main import main
from tests.live.pair import Pair, arrays, assert_equal_outputs, picture, randomize, timm
from tests.live.test_outputs_timm import TINY

NAMES = ["dm_nfnet_f0", "nfnet_l0", "nf_regnet_b1", "nf_ecaresnet26"]


def save_with_timm(name: str, folder: Path, **model_args: Any) -> Any:
    settings = TINY | ({"group_size": 0, "num_features": 0} if "resnet" in name else {"group_size": 8}) | model_args
    model = timm.create_model(name, **settings).eval()
    randomize(model, 0)
    labels = {"label_names": [f"label {i}" for i in range(10)]}
    timm.models.save_for_hf(model, folder, model_config=labels, safe_serialization="both")
    return model


def parameters(ckpt: Checkpoint) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in named_parameters(ckpt.model).items()}


@pytest.mark.parametrize("name", NAMES)
def test_what_timm_saves_opens_as_the_same_network(name: str, tmp_path: Path) -> None:
    theirs = save_with_timm(name, tmp_path, alpha=0.25, output_stride=16)
    ckpt = from_pretrained(tmp_path)
    assert (ckpt.architecture, ckpt.labels) == (name, tuple(f"label {i}" for i in range(10)))
    ours = parameters(ckpt)
    assert ours.keys() == arrays(theirs).keys()
    for tensor, array in arrays(theirs).items():
        assert ours[tensor].tobytes() == array.tobytes(), tensor
    assert_equal_outputs(Pair(theirs, ckpt.model), picture(33), f"{name}, saved by timm", jit=False)


def test_timm_saves_again_what_we_saved_of_it(tmp_path: Path) -> None:
    save_with_timm("nfnet_l0", tmp_path / "timm", alpha=0.25)
    save_pretrained(from_pretrained(tmp_path / "timm"), tmp_path / "ours")
    again = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True)
    timm.models.save_for_hf(again, tmp_path / "again", safe_serialization=True)
    first, last = (from_pretrained(tmp_path / folder) for folder in ("timm", "again"))
    assert first.config == last.config
    assert {n: a.tobytes() for n, a in parameters(first).items()} == {
        n: a.tobytes() for n, a in parameters(last).items()
    }


@pytest.mark.parametrize("in_channels", [1, 2, 4, 5, 6, 7])
def test_other_input_channels_are_adapted_by_timms_rule(in_channels: int, tmp_path: Path) -> None:
    save_with_timm("nfnet_f0", tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=in_channels)
    ours = parameters(from_pretrained(tmp_path, in_channels=in_channels))
    for tensor, array in arrays(theirs).items():
        assert ours[tensor].shape == array.shape, tensor
        np.testing.assert_allclose(ours[tensor], array, rtol=0, atol=1e-7, err_msg=tensor)


@pytest.mark.parametrize("num_classes", [7, 0])
def test_other_classes_leave_everything_else_as_timm_leaves_it(num_classes: int, tmp_path: Path) -> None:
    save_with_timm("dm_nfnet_f0", tmp_path)
    theirs = arrays(timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=num_classes))
    ours = parameters(from_pretrained(tmp_path, num_classes=num_classes))
    assert {n: a.shape for n, a in ours.items()} == {n: a.shape for n, a in theirs.items()}
    for tensor, array in theirs.items():
        assert tensor.startswith("head.") or ours[tensor].tobytes() == array.tobytes(), tensor


def test_verify_compares_with_timms_own_forward_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_with_timm("nfnet_f0", tmp_path)
    assert main(["verify", str(tmp_path), str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [output["name"] for output in found["timm"]] == ["feature 0", "feature 1", "feature 2", "logits"]
    assert all(0 < output["relative"] < 5e-6 for output in found["timm"]), found["timm"]

    assert main(["verify", str(tmp_path), str(tmp_path)]) == 0
    assert "A - timm" in capsys.readouterr().out
    # Rounding alone is more than nothing.
    assert main(["verify", str(tmp_path), str(tmp_path), "--tolerance", "0"]) == 2
    assert "A from timm in 4 outputs, the worst, " in capsys.readouterr().err
