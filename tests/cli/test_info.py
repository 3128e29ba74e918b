"""`nfnet-eqx info`."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from nfnet_eqx import get_config
from nfnet_eqx.checkpoints import load_checkpoint, save_pretrained
from nfnet_eqx.cli import main
from nfnet_eqx.cli.info import _lines
from nfnet_eqx.convert._deepmind import read_deepmind
from nfnet_eqx.images._preprocess import Preprocess

DATA = Path(__file__).resolve().parents[1] / "data"
# DeepMind's code at a reduced size, which has no name of its own.
DEEPMIND_T0 = DATA / "deepmind/T0_dill0.3.3_p3.npz"
TINY = DATA / "timm/tiny_nfnet"


def described(source: str | Path, capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["info", str(source), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of our own, with a note from a stranger."""
    folder = tmp_path_factory.mktemp("checkpoint")
    preprocess = Preprocess(input_size=(160, 160), test_input_size=(192, 224))
    about = {"license": "cc0-1.0", "notes": "a \x1b[31mred\x1b[0m note"}
    save_pretrained(dataclasses.replace(load_checkpoint(TINY), preprocess=preprocess, about=about), folder)
    return folder


def test_an_architecture_is_told_in_full(capsys: pytest.CaptureFixture[str]):
    facts = described("dm_nfnet_f0", capsys)
    assert facts["config"] == get_config("dm_nfnet_f0").to_dict()
    assert (facts["train_size"], facts["test_size"], facts["macs_size"]) == (192, 256, [256, 256])
    # 2102.06171, table 1.
    assert f"{facts['parameters'] / 1e6:.1f} {facts['macs'] / 1e9:.2f}" == "71.5 12.38"
    assert (facts["forward_flops"], facts["training_flops"]) == (2 * facts["macs"], 6 * facts["macs"])


def test_a_folder_and_its_weights_tell_the_same(folder: Path, capsys: pytest.CaptureFixture[str]):
    facts = described(folder, capsys)
    assert facts["architecture"] == "nfnet_f0"
    assert facts["config"]["widths"] == [32, 64, 96, 96]
    assert facts["preprocess"]["test_input_size"] == facts["macs_size"] == [192, 224]
    assert (len(facts["labels"]), facts["labels"][0]) == (1000, "tench")
    assert facts["about"]["license"] == "cc0-1.0"
    assert described(folder / "model.safetensors", capsys) | {"source": str(folder)} == facts


def test_wide_and_endless_names_keep_the_columns():
    lines = _lines({"about": {"作者": "someone", "license": "MIT"}, "labels": ["日本", "x" * 10_000_000]})
    assert lines[1:3] == ["  作者     someone", "  license  MIT"], "a wide character takes two columns"
    assert len(lines[3]) < 200 and "日本, xxx" in lines[3]


def test_a_file_of_deepminds_is_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    facts = described(DEEPMIND_T0, capsys)
    other = shutil.copy(DEEPMIND_T0, tmp_path / "weights")
    assert described(other, capsys) | {"source": str(DEEPMIND_T0)} == facts, "its name does not matter"
    assert (facts["architecture"], facts["config"]["numerics"]) == ("dm_nfnet", "deepmind")
    assert (facts["source"], facts["preprocess"]["resize"]) == (str(DEEPMIND_T0), "deepmind")
    tree = read_deepmind(DEEPMIND_T0)
    assert facts["parameters"] == sum(array.size for arrays in tree.values() for array in arrays.values())


def test_the_text_has_the_same_facts_a_line_each(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info", str(folder)]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["architecture", "nfnet_f0"] in lines
    assert ["widths", "32, 64, 96, 96"] in lines
    macs, forward, training = (
        dict(line for line in lines if len(line) == 2)[name] for name in ("macs", "forward_flops", "training_flops")
    )
    assert [cost.split()[1] for cost in (macs, forward, training)] == ["G", "G", "G"]
    assert float(training.split()[0]) == pytest.approx(3 * float(forward.split()[0]), abs=0.02)
    assert [line[1][-6:] for line in lines if line[0] == "labels"] == ["(1000)"]


def test_a_strangers_text_cannot_steer_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "a \\x1b[31mred" in out


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("dm_nfnt_f0", "did you mean dm_nfnet_f0"),
        ("frobnicate", "nfnet-eqx list names the architectures"),
        ("no/such/folder/here", "no/such/folder/here"),
        ("", "''"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(source: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["info", source]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err and err.count("\n") == 1


def test_an_empty_folder_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path) in err and err.count("\n") == 1
