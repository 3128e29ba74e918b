"""`TrainConfig` and the recipes: what the papers say, and every impossible value named at once."""

import dataclasses
import json
from pathlib import Path

import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Augment
from nfnet_eqx.train import OptimizerConfig, TrainConfig
from nfnet_eqx.train._optimizer import make_schedule
from nfnet_eqx.train.recipes import RECIPES, cifar10, finetune, imagenet, smoke, vit, web
from nfnet_eqx.zoo import from_pretrained

DATA, OUT = Path("data"), Path("out")


def test_every_impossible_value_is_named_at_once():
    with pytest.raises(InputError) as error:
        TrainConfig(
            model="dm_nfnet_f0", data=DATA, out=OUT, epochs=0.0, batch_size=0, label_smoothing=1.0, seed=-1,
        )  # fmt: skip
    for fault in (
        "epochs must be positive, got 0.0",
        "batch_size must be 1 or more, got 0",
        "label_smoothing must lie in [0, 1), got 1.0",
        "seed must lie between 0 and 2147483647, got -1",
    ):
        assert fault in str(error.value)


def test_every_impossible_value_of_the_optimizer_is_named_at_once():
    with pytest.raises(InputError) as error:
        OptimizerConfig(learning_rate=float("nan"), sam_fraction=1.5, layer_decay=0.0)
    for fault in (
        "learning_rate must be a finite number, got nan",
        "sam_fraction must lie in (0, 1], got 1.5",
        "layer_decay must lie in (0, 1], got 0.0",
    ):
        assert fault in str(error.value)
    with pytest.raises(InputError, match=r"sam_fraction must be 1 / a whole number \(1, 0.5, ...\), got 0.3"):
        OptimizerConfig(sam_fraction=0.3)


def test_a_config_is_json():
    config = imagenet(DATA, OUT)
    assert json.loads(json.dumps(config.to_dict()))["augment"]["randaugment_layers"] == 4
    assert json.loads(json.dumps(cifar10().to_dict()))["model"] == cifar10().model.to_dict()


@pytest.mark.parametrize(
    ("model", "sizes", "drop_rate", "magnitude"),
    [
        ("dm_nfnet_f0", (192, 256), 0.2, 5),
        ("dm_nfnet_f1", (224, 320), 0.3, 10),
        ("dm_nfnet_f2", (256, 352), 0.4, 10),
        ("dm_nfnet_f3", (320, 416), 0.4, 15),
        ("dm_nfnet_f5", (416, 544), 0.5, 15),
        ("dm_nfnet_f6", (448, 576), 0.5, 15),
    ],
)
def test_imagenet_is_the_papers_recipe_by_variant(model, sizes, drop_rate, magnitude):
    config = imagenet(DATA, OUT, model)
    assert ((config.image_size, config.eval_size), config.drop_rate) == (sizes, drop_rate)
    assert (config.augment.randaugment_layers, config.augment.randaugment_magnitude) == (4, magnitude)
    assert (config.augment.mixup, config.augment.cutmix) == (0.2, True)
    assert (config.epochs, config.batch_size, config.label_smoothing, config.stochastic_depth) == (360, 4096, 0.1, 0.25)
    expected = OptimizerConfig(learning_rate=0.1, warmup=5 / 360, weight_decay=2e-5, clipping=0.01, ema_decay=0.99999)
    assert config.optimizer == expected


def test_imagenets_learning_rate_peaks_at_1_6_after_five_epochs():
    config = imagenet(DATA, OUT)
    steps_per_epoch = 1_281_167 / 4096
    schedule = make_schedule(config.optimizer, batch_size=4096, total_steps=round(360 * steps_per_epoch))
    peak = round(5 * steps_per_epoch)
    assert float(schedule(peak)) == pytest.approx(1.6)
    assert float(schedule(peak // 2)) == pytest.approx(0.8, rel=1e-3)
    assert float(schedule(round(360 * steps_per_epoch))) == pytest.approx(0, abs=1e-6)


def test_web_has_neither_average_nor_augmentation_beyond_crops_and_flips():
    config = web(DATA, OUT)
    assert config.augment == Augment()
    assert (config.optimizer.ema_decay, config.optimizer.weight_decay, config.image_size) == (None, 1e-6, 224)


def test_finetune_has_the_checkpoints_sizes_and_the_papers_sam_and_rates():
    config = finetune(DATA, OUT, "nfnet_cifar10")
    assert (config.epochs, config.image_size, config.eval_size) == (50, None, None)
    assert (config.optimizer.sam_rho, config.stochastic_depth, config.drop_rate) == (0.05, 0.1, 0.25)
    assert config.optimizer.learning_rate * config.batch_size / 256 == pytest.approx(0.1)


def test_vit_is_the_papers_optimizer_and_loss_at_the_models_own_sizes():
    config = vit(DATA, OUT)
    assert (config.image_size, config.eval_size, config.epochs, config.batch_size) == (None, None, 90, 1024)
    assert (config.loss, config.head_bias, config.label_smoothing) == ("sigmoid", -6.9, 0.0)
    expected = OptimizerConfig(
        kind="adafactor", learning_rate=8e-4, schedule="rsqrt", warmup=0.1, cooldown=0.4, momentum=0.9, beta2=0.999,
        weight_decay=0.03, head_weight_decay=3.0, clipping=None, clip_norm=1.0, ema_decay=None,
    )  # fmt: skip
    assert config.optimizer == expected
    steps = round(90 * 1_281_167 / 1024)
    schedule = make_schedule(config.optimizer, batch_size=1024, total_steps=steps)
    assert float(schedule(round(0.1 * steps))) == pytest.approx(8e-4) and float(schedule(steps)) == 0


def test_the_bias_of_a_classifier_that_is_kept_is_refused():
    with pytest.raises(
        InputError, match=r"head_bias \(=-10.0\) is for a fresh classifier, keep_head keeps the old one"
    ):
        TrainConfig(model="nfnet_cifar10", data=DATA, out=OUT, keep_head=True, head_bias=-10.0)


def test_cifar10_is_the_shipped_checkpoints_recipe():
    config = cifar10()
    assert config.model == from_pretrained("nfnet_cifar10").config
    card = (Path(__file__).parents[2] / "zoo" / "weights" / "nfnet_cifar10" / "README.md").read_text()
    rate = config.optimizer.learning_rate * config.batch_size / 256
    for name, value in {
        "epochs": config.epochs, "batch_size": config.batch_size, "peak_learning_rate": rate,
        "weight_decay": config.optimizer.weight_decay, "clipping": config.optimizer.clipping,
        "eps": config.optimizer.clipping_eps, "label_smoothing": config.label_smoothing,
        "ema_decay": config.optimizer.ema_decay, "warmup_epochs": config.optimizer.warmup * config.epochs,
    }.items():  # fmt: skip
        assert f"| `{name}` | {value} |" in card


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_file_states_its_reference_and_its_own_command(name: str):
    text = (Path(__file__).parents[2] / "nfnet_eqx" / "train" / "recipes" / f"_{name}.py").read_text()
    docstring = text.split('"""')[1]
    assert f"nfnet-eqx train --recipe {name}" in docstring
    assert "References:" in docstring or name == "smoke"
    assert dataclasses.is_dataclass(smoke())
