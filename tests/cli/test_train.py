"""`nfnet-eqx train`: recipes, changes on the command line, and one clear line for what cannot be."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import nfnet_eqx as nfx
from nfnet_eqx.cli import main


def test_help_names_the_recipes(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for recipe in ("imagenet", "web", "vit", "finetune", "cifar10", "smoke"):
        assert f"\n  {recipe} " in out
    assert "Example " in out


def test_a_recipes_help_lists_every_field_with_its_value(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["train", "--recipe", "imagenet", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for field in ("--epochs", "--optimizer.learning-rate", "--augment.randaugment-layers", "--no-fsdp"):
        assert field in out
    assert "360" in out and "4096" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dm_nfnet_f0"], "--recipe is needed: one of imagenet, web, vit, finetune, cifar10, smoke"),
        (["--recipe", "imagnet"], "--recipe imagnet: there are imagenet, web, vit, finetune, cifar10, smoke"),
        (["--recipe", "finetune", "--out", "x"], "--recipe finetune needs --data and --model"),
        (["--recipe", "web", "--data", "nowhere", "--out", "x"], "nowhere"),
        (["--recipe", "smoke", "--model"], "--model"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--epoch", "1"], "--epoch: there is no such field; did you mean --epochs?"),
        (["--lr", "0.1"], "--lr: there is no such field; did you mean --optimizer.learning-rate?"),
        (["--optimizer.lr", "0.1"], "--optimizer.lr: there is no such field; did you mean --optimizer.learning-rate?"),
        (["--weight_decay=1e-5"], "did you mean --optimizer.weight-decay?"),
        (["--no-flip"], "--no-flip: there is no such field; did you mean --augment.no-flip?"),
        (["--xyzzy", "1", "--bs", "2"], "--xyzzy: there is no such field; --help lists them all; --bs: there is no"),
        (["0.1"], "unexpected '0.1'; a value stands behind the field's name"),
    ],
)
def test_a_misspelt_field_is_one_line_that_says_what_is_meant(
    change: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["train", "--recipe", "smoke", *change]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_a_value_that_is_impossible_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["train", "--recipe", "smoke", "--batch-size", "0"])
    assert end.value.code == 2 and "batch_size must be 1 or more, got 0" in capsys.readouterr().err


def test_the_help_shows_what_a_recipe_needs_as_required(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["train", "--recipe", "finetune", "--out", "runs/mine", "--help"])
    assert end.value.code == 0
    options = re.split(r"--(?=[a-z])", re.sub(r"[│\s]+", " ", capsys.readouterr().out))
    needed = [option.split()[0] for option in options if "(required)" in option]
    assert needed == ["model", "data"]
    assert any(option.startswith("out ") and "(default: runs/mine)" in option for option in options)


def test_the_help_names_the_images_that_need_no_files(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "the word digits" in capsys.readouterr().out


@pytest.mark.slow
def test_smoke_trains_and_what_it_exports_is_evaluated_alike(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    out = tmp_path / "run"
    command = ["train", "--recipe", "smoke", "--out", str(out), "--epochs", "0.5"]
    assert main(command) == 0
    printed, progress = capsys.readouterr()
    assert printed.startswith(f"{out}/checkpoint: top-1 ") and printed.count("\n") == 1
    assert "1,368,615 parameters" in progress and "1,438 pictures of 10 classes" in progress

    assert main(["evaluate", str(out / "checkpoint"), "--data", "digits", "--json"]) == 0
    top1 = json.loads(capsys.readouterr().out)["top1"]
    assert f"top-1 {top1['value'] if isinstance(top1, dict) else top1:.2f} %" in printed
    # The network is the recipe's, and the labels are the data's.
    ckpt = nfx.from_pretrained(out / "checkpoint")
    assert ckpt.labels == tuple(str(digit) for digit in np.unique(load_digits().target))

    assert main([*command, "--no-resume"]) == 2
    assert "holds a run, and --no-resume was given" in capsys.readouterr().err
