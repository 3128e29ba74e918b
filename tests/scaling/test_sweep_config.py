"""The TOML file of a sweep: what it comes to, and that every fault in it is told at once."""

from pathlib import Path

import pytest

import nfnet_eqx as nfx
from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling import SweepConfig, SweepModel, read_sweep
from nfnet_eqx.train.recipes import cifar10

GOOD = """
data = "data/cifar10"
recipe = "cifar10"
epochs = [0.25, 1]
learning_rates = [0.4, 0.8]

[train]
batch_size = 128
optimizer.weight_decay = 1e-4
preprocess.crop_pct = 0.9

[[models]]
name = "f0"
model = "dm_nfnet_f0"

[[models]]
name = "tiny"
family = "Tiny"
learning_rates = [0.1]
[models.network]
depths = [1]
widths = [8]
stem_widths = [4]
stem_strides = [2]
stage_strides = [1]
group_size = "none"
num_features = "none"
[models.train]
batch_size = 64
optimizer.ema_decay = "none"
"""


def read(text: str, tmp_path: Path) -> SweepConfig:
    file = tmp_path / "study.toml"
    file.write_text(text)
    return read_sweep(file)


def test_a_file_comes_to_a_sweep_whose_runs_are_the_recipe_s_with_the_changes(tmp_path: Path):
    config = read(GOOD, tmp_path)
    f0, tiny = config.models
    assert (config.epochs, config.seeds, config.keep_checkpoints) == ((0.25, 1), (0,), False)
    assert (config.rates(f0, 1), config.rates(tiny, 1)) == ((0.4, 0.8), (0.1,))

    run = config.train_config(f0, Path("out"), epochs=0.25, learning_rate=0.8, seed=3)
    recipe = cifar10()
    assert (run.model, run.data, run.out) == ("dm_nfnet_f0", Path("data/cifar10"), Path("out"))
    assert (run.epochs, run.seed, run.optimizer.learning_rate) == (0.25, 3, 0.8)
    assert (run.batch_size, run.optimizer.weight_decay) == (128, 1e-4)
    assert run.preprocess.crop_pct == 0.9 and run.preprocess.mean == recipe.preprocess.mean
    assert run.optimizer.warmup == recipe.optimizer.warmup and run.augment == recipe.augment
    # One evaluation, of the last state, and no checkpoint: what a sweep needs.
    assert (run.eval_every_epochs, run.export) == (0.25, None)

    run = config.train_config(tiny, Path("out"), epochs=1, learning_rate=0.1, seed=0)
    assert isinstance(run.model, nfx.NFNetConfig) and run.model.widths == (8,) and run.model.group_size is None
    assert (run.batch_size, run.optimizer.ema_decay, run.optimizer.weight_decay) == (64, None, 1e-4)


def test_a_sweep_in_python_is_the_one_of_a_file(tmp_path: Path):
    text = GOOD.split("[[models]]")
    config = read("[[models]]".join(text[:2]), tmp_path)
    assert config == SweepConfig(
        data=Path("data/cifar10"),
        recipe="cifar10",
        epochs=(0.25, 1),
        learning_rates=(0.4, 0.8),
        train={"batch_size": 128, "optimizer": {"weight_decay": 1e-4}, "preprocess": {"crop_pct": 0.9}},
        models=(SweepModel(name="f0", model="dm_nfnet_f0"),),
    )


def test_all_faults_of_a_file_are_told_at_once_and_misspelt_fields_with_the_nearest_right_one(tmp_path: Path):
    text = """
        dta = "digits"
        recipe = "smoke"
        epochs = [0.25, 0.25]
        learning_rates = [0.4, -0.8]
        [train]
        image_sise = 16
        batch_size = "many"
        optimizer.weight_decy = 3
        seed = 3
        [[models]]
        name = "a/b"
        famly = "NFNet"
        [models.network]
        depts = [1]
        [[models]]
        name = "c"
        model = "dm_nfnet_f0"
        recipe = "smok"
        learning_rates = 0.1
        [[models]]
        name = "d"
        model = "dm_nfnet_f0"
    """
    with pytest.raises(InputError) as error:
        read(text, tmp_path)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "study.toml")) and "\n" not in message
    for part in [
        "models[1] (a/b): ", "'depts' (=[1]; did you mean 'depths'?)", "'widths' is missing",
        "famly: there is no such field; did you mean family?", "name (='a/b') must be of letters",
        "models[2] (c): learning_rates must be a sequence of finite numbers or a table, got 0.1",
        "there is no recipe 'smok'; did you mean smoke?",
        "dta: there is no such field; did you mean data?", "data is missing", "epochs names 0.25 twice",
        "learning_rates must be positive, got (0.4, -0.8)",
        "model d: train.seed is the sweep's to set: use seeds",
        "train.image_sise: there is no such field; did you mean image_size?",
        "train.optimizer.weight_decy: there is no such field; did you mean weight_decay?",
        "train: batch_size must be an integer, got 'many'",
    ]:  # fmt: skip
        assert part in message, part


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipe = "cifar10"', "", "recipe is missing, here and for the whole sweep: one of imagenet"),
        ("learning_rates = [0.4, 0.8]", "", "model f0: learning_rates is missing, here and for the whole sweep"),
        ("epochs = [0.25, 1]", "epochs = []", "epochs must be a sequence of finite numbers, got ()"),
        ("epochs = [0.25, 1]", "epochs = [0]", r"epochs must be positive, got \(0,\)"),
        ('name = "tiny"', 'name = "f0"', "two models are called f0"),
        ('model = "dm_nfnet_f0"', "", r"models\[1\] \(f0\): give either model \(a name\) or network"),
        ('model = "dm_nfnet_f0"', "model = 3", r"model must be text or of the class NetworkConfig, got 3"),
        ("[[models]]", "[models]", "no valid TOML|models must be tables"),
        ("epochs = [0.25, 1]", "epochs = [0.25, 1", "no valid TOML .*; mend that line"),
        ("batch_size = 128", 'batch_size = 128\nexport = "best"', r"train.export is the sweep's to set: use keep_che"),
        ("batch_size = 128", 'augment = "no"', "train: augment must be of the class Augment, got 'no'"),
        ("optimizer.weight_decay = 1e-4", "optimizer.learning_rate = 1", "train.optimizer.learning_rate is the sweep"),
    ],
)
def test_a_fault_is_one_line_that_names_it(old: str, new: str, message: str, tmp_path: Path):
    assert old in GOOD
    with pytest.raises(InputError, match=message) as error:
        read(GOOD.replace(old, new), tmp_path)
    assert str(tmp_path / "study.toml") in str(error.value) and "\n" not in str(error.value)


def test_learning_rates_may_differ_by_budget(tmp_path: Path):
    by_budget = 'learning_rates = { "0.25" = [0.4, 0.8], "1.0" = [0.2] }'
    config = read(GOOD.replace("learning_rates = [0.4, 0.8]", by_budget), tmp_path)
    assert [config.rates(config.models[0], epochs) for epochs in config.epochs] == [(0.4, 0.8), (0.2,)]
    assert [config.rates(config.models[1], epochs) for epochs in config.epochs] == [(0.1,), (0.1,)]
    for old, new, message in [
        ('"1.0"', '"2"', "learning_rates.2: epochs names no such budget; learning_rates has nothing for 1 epochs"),
        ('"1.0"', '"one"', "learning_rates.'one': is no number of epochs"),
        ("[0.2]", "[]", "learning_rates.'1.0' must be a sequence of positive numbers, got []"),
        ("[0.4, 0.8]", "[0.4, 0.4]", "learning_rates.'0.25' names 0.4 twice"),
    ]:
        with pytest.raises(InputError) as error:
            read(GOOD.replace("learning_rates = [0.4, 0.8]", by_budget.replace(old, new)), tmp_path)
        assert message in str(error.value)


def test_changes_for_all_and_for_one_model_are_made_together(tmp_path: Path):
    # An average of squared gradients is nothing for SGD, which this model is not trained with.
    text = GOOD.replace("optimizer.weight_decay = 1e-4", "optimizer.beta2 = 0.99").split("[[models]]")
    text = text[0] + "[[models]]" + text[1] + '[models.train]\noptimizer.kind = "adamw"\n'
    config = read(text, tmp_path)
    run = config.train_config(config.models[0], Path("out"), epochs=1, learning_rate=1e-3, seed=0)
    assert (run.optimizer.kind, run.optimizer.beta2, run.optimizer.learning_rate) == ("adamw", 0.99, 1e-3)


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(InputError, match=r"study.toml: No such file or directory; give the TOML file of a sweep"):
        read_sweep(tmp_path / "study.toml")
