"""A run: what it leaves in its folder, how it goes on, and what it refuses."""

import dataclasses
import json
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import nfnet_eqx as nfx
from nfnet_eqx._errors import InputError
from nfnet_eqx.data import eval_stream, open_source
from nfnet_eqx.train import TrainConfig, make_mesh, read_metrics, train
from nfnet_eqx.train import _loop as loop
from nfnet_eqx.train._checkpoint import Checkpoints
from nfnet_eqx.train._cost import step_flops
from nfnet_eqx.train._prepare import prepare
from tests.train.tiny import TINY

Changed = Callable[..., TrainConfig]


def exported(config: TrainConfig) -> dict[str, np.ndarray]:
    model = nfx.from_pretrained(config.out / "checkpoint").model
    return {name: np.asarray(leaf) for name, leaf in nfx.named_parameters(model).items()}


def assert_equal_runs(a: TrainConfig, b: TrainConfig) -> None:
    others = exported(b)
    for name, array in exported(a).items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], bool]:
    """A function for `stop`, true from when the run waits for the batch of a step."""
    real, came = loop.train_stream, threading.Event()

    def stream(*args, **kwargs):
        for i, batch in enumerate(real(*args, **kwargs), kwargs["start"] + 1):
            if i == step:
                came.set()
            yield batch

    monkeypatch.setattr(loop, "train_stream", stream)
    return came.is_set


@pytest.mark.slow
def test_a_run_leaves_a_checkpoint_that_opens_metrics_curves_and_its_settings(config: TrainConfig):
    result = train(config, recipe="test")
    assert (result.step, result.total_steps) == (12, 12) and result.evaluation is not None
    assert sorted(p.name for p in config.out.iterdir()) == [
        "checkpoint", "checkpoints", "curves.png", "metrics.jsonl", "run.json"
    ]  # fmt: skip

    ckpt = nfx.from_pretrained(config.out / "checkpoint")
    assert ckpt.architecture == "tiny_nfnet" and ckpt.preprocess.input_size == (16, 16)
    assert ckpt.config.drop_rate == 0.2 and ckpt.config.stochastic_depth == 0.25
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in nfx.named_parameters(ckpt.model).values())
    card = (config.out / "checkpoint" / "README.md").read_text()
    assert f"{result.evaluation.top1:.2f}" in card or str(round(result.evaluation.top1, 2)) in card
    assert "learning_rate" in card and "test" in card

    metrics = read_metrics(config.out)
    assert [r["step"] for r in metrics if r["split"] == "train"] == [4, 8, 12]
    assert [r["step"] for r in metrics if r["split"] == "eval"] == [6, 12]
    assert {"loss", "top1", "grad_norm", "learning_rate", "images_per_second", "epoch"} <= set(metrics[0])
    for record in metrics:  # in training and evaluation, for the scaling laws
        assert record["images"] == 16 * record["step"] == 96 * record["epoch"]
        assert record["flops"] == record["images"] * nfx.flops(TINY, 16) and record["seconds"] > 0
    exported_at = [r for r in metrics if r["split"] == "eval" and r["step"] == result.exported_step]
    assert exported_at[0]["top1"] == result.evaluation.top1 == max(r["top1"] for r in metrics if r["split"] == "eval")

    assert not [r for r in metrics if "top5" in r], "of four classes it is always 100 %"

    settings = json.loads((config.out / "run.json").read_text())
    assert settings["recipe"] == "test" and settings["config"] == config.to_dict()
    with Image.open(config.out / "curves.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.slow
def test_a_run_that_is_stopped_saves_and_the_one_that_goes_on_ends_as_an_unbroken_one(
    config: TrainConfig, changed: Changed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    whole, broken = config, changed(config, out=tmp_path / "broken")
    train(whole)
    before, during = signal.getsignal(signal.SIGTERM), set()
    for step in (5, 11):
        with monkeypatch.context() as patch:
            came = stop_after(patch, step)
            result = train(broken, stop=lambda came=came: during.add(signal.getsignal(signal.SIGTERM)) or came())
        assert result.step == step and result.checkpoint is None
        assert not (broken.out / "checkpoint").exists()
    assert during == {before}, "a handler belongs to the program"
    train(broken)
    assert_equal_runs(whole, broken)

    def lines(config: TrainConfig) -> list[tuple[int, str, float]]:
        return [(r["step"], r["split"], r["epoch"]) for r in read_metrics(config.out)]

    assert lines(broken) == lines(whole)
    spent, unbroken = ([[r[n] for n in ("images", "flops")] for r in read_metrics(c.out)] for c in (broken, whole))
    assert spent == unbroken
    seconds = [r["seconds"] for r in read_metrics(broken.out)]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert seconds[-1] == seconds[-2], "of the last step, in training and in its evaluation"
    # Once more: there is nothing left to do, and it says the same.
    again = train(broken)
    assert again.step == 12 and again.evaluation is not None
    assert_equal_runs(whole, broken)


@pytest.mark.slow
def test_a_run_that_an_older_version_began_is_resumed_and_says_what_is_known(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        real = Checkpoints.save
        patch.setattr(Checkpoints, "save", lambda self, *args, broken=0, seconds=None: real(self, *args, broken=broken))
        train(config, stop=stop_after(patch, 5))
    old = [{k: v for k, v in r.items() if k not in ("images", "flops", "seconds")} for r in read_metrics(config.out)]
    (config.out / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
    train(config)
    lines = read_metrics(config.out)
    assert lines[: len(old)] == old, "as they were"
    a_step = step_flops(config, TINY)
    for line in lines[len(old) :]:
        assert (line["images"], line["flops"]) == (16 * line["step"], a_step * line["step"])
        assert "seconds" not in line, "of the steps before, nobody knows"


def test_a_run_of_other_settings_is_not_gone_on_with_and_nothing_is_lost(
    config: TrainConfig, changed: Changed, tmp_path: Path
):
    train(changed(config, epochs=0.2))
    before = {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()}
    with pytest.raises(
        InputError, match=r"other settings: optimizer.learning_rate \(was 1.0, now 0.5\), seed \(was 0, now 1\);"
    ):
        train(changed(config, epochs=0.2, seed=1, learning_rate=0.5))
    with pytest.raises(InputError, match=r"model \(was .*tiny, now nfnet_cifar10\)"):
        train(changed(config, epochs=0.2, model="nfnet_cifar10"))
    with np.load(config.data / "train.npz") as arrays:
        fewer = {name: array[:64] for name, array in arrays.items()}
    shutil.copytree(config.data, tmp_path / "fewer")
    np.savez(tmp_path / "fewer" / "train.npz", **fewer)
    with pytest.raises(InputError, match=r"data \(was other pictures or classes, now these\)"):
        train(changed(config, epochs=0.2, data=tmp_path / "fewer"))
    assert {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_the_best_state_is_exported_with_the_number_that_evaluate_finds_and_every_state_opens(
    config: TrainConfig, changed: Changed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    config = changed(config, precision="bfloat16")
    real, made = loop.evaluate, []

    def evaluate(*args, **kwargs):  # as if the state after step 6 were perfect
        made.append(real(*args, **kwargs))
        return dataclasses.replace(made[0], ranks=made[0].ranks * 0) if len(made) == 1 else made[-1]

    monkeypatch.setattr(loop, "evaluate", evaluate)
    with caplog.at_level("INFO"):
        result = train(config)
    assert result.exported_step == 6 and "exported step 6 of 12, the best on the evaluation images" in caplog.text
    assert "step 6 of 12, the best on the evaluation images" in (config.out / "checkpoint" / "README.md").read_text()

    # What the card says is what the exported checkpoint gets in float32, whatever the run computed in.
    ckpt = nfx.from_pretrained(config.out)
    held_out = open_source(config.data, "validation")
    batches = eval_stream(held_out, lambda image: ckpt.preprocess(image, use_test_size=True), batch_size=64)
    again = real(ckpt.model, batches, mesh=make_mesh())
    assert result.evaluation is not None and result.evaluation.top1 == again.top1
    assert result.evaluation.loss == pytest.approx(again.loss, rel=1e-5)
    assert result.evaluation.loss != made[0].loss  # that was bfloat16

    # The run, and each of its states, is a checkpoint.
    sixth, last = (nfx.from_pretrained(config.out / "checkpoints" / step) for step in ("6", "12"))
    for name, array in nfx.named_parameters(ckpt.model).items():
        np.testing.assert_array_equal(np.asarray(nfx.named_parameters(sixth.model)[name]), np.asarray(array))
    assert (sixth.config, sixth.preprocess, sixth.architecture) == (ckpt.config, ckpt.preprocess, "tiny_nfnet")
    assert str(sixth.source).endswith("checkpoints/6")
    differ = [np.any(a != b) for a, b in zip(*(jax.tree.leaves(c.model.head) for c in (sixth, last)), strict=True)]
    assert any(differ)

    # Which one is exported may be chosen afterwards.
    result = train(changed(config, export="last"))
    assert result.exported_step == 12
    names = nfx.named_parameters(nfx.from_pretrained(config.out).model)
    for name, array in nfx.named_parameters(last.model).items():
        np.testing.assert_array_equal(np.asarray(names[name]), np.asarray(array))


@pytest.mark.slow
def test_a_state_is_saved_before_an_evaluation_that_fails_and_the_resumed_run_makes_that_up(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    def fails(*args, **kwargs):
        raise InputError("no image can be read")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", fails)
        with pytest.raises(InputError, match="no image can be read"):
            train(config)
    assert (config.out / "checkpoints" / "6").is_dir()
    assert not (config.out / "run.lock").exists()
    train(config)
    assert [r["step"] for r in read_metrics(config.out) if r["split"] == "eval"] == [6, 12]


@pytest.mark.slow
def test_a_finished_run_ends_again_without_its_model_and_after_one_class_was_renamed(
    config: TrainConfig, changed: Changed, tmp_path: Path
):
    photos = config.data
    model, data = shutil.copytree(config.model, tmp_path / "model"), tmp_path / "data"
    config = changed(config, model=str(model), epochs=0.2, data=data)

    def write(*names: str) -> None:
        """The images as folders of these names come: numbered in the order of the names."""
        data.mkdir(exist_ok=True)
        numbers = np.argsort(np.argsort(names))
        for split in ("train", "test"):
            with np.load(photos / f"{split}.npz") as arrays:
                images, labels = arrays["images"], numbers[arrays["labels"]]
            np.savez(data / f"{split}.npz", images=images, labels=labels, classes=np.array(sorted(names)))

    write("boats", "chelsea", "german_shepherd", "horses")
    before = train(config)
    shutil.rmtree(model)
    shutil.rmtree(config.out / "checkpoint")
    write("zeppelins", "chelsea", "german_shepherd", "horses")  # the first class is the last now
    after = train(config)
    assert before.evaluation is not None and after.evaluation is not None
    assert after.evaluation.top1 == before.evaluation.top1
    np.testing.assert_array_equal(after.evaluation.labels, before.evaluation.labels)
    assert nfx.from_pretrained(config.out).labels == ("zeppelins", "chelsea", "german_shepherd", "horses")
    write("zeppelins", "chelsea", "german_shepherd", "mules")
    with pytest.raises(InputError, match="data .was other pictures or classes"):
        train(config)


@pytest.mark.slow
def test_a_run_may_show_and_export_nothing(config: TrainConfig, changed: Changed, capsys: pytest.CaptureFixture[str]):
    config = changed(config, epochs=0.5, export=None)
    result = train(config, progress=False)
    assert result.evaluation is not None and (result.step, result.checkpoint, result.exported_step) == (3, None, None)
    assert sorted(p.name for p in config.out.iterdir()) == ["checkpoints", "metrics.jsonl", "run.json"]
    assert read_metrics(config.out)[-1]["top1"] == result.evaluation.top1
    assert "step" not in capsys.readouterr().err


def test_repeats_and_epochs_make_steps_together(config: TrainConfig, changed: Changed):
    result = train(changed(config, epochs=0.1, repeats=4, batch_size=16))
    assert result.total_steps == round(0.1 * 4 * 96 / 16)


def test_a_folder_with_other_files_is_left_alone(config: TrainConfig):
    config.out.mkdir()
    (config.out / "thesis.tex").write_text("...")
    with pytest.raises(
        InputError, match=r"run\) exists and holds no run \(run.json is missing\); choose another folder"
    ):
        train(config)
    assert [p.name for p in config.out.iterdir()] == ["thesis.tex"]


def test_curves_that_cannot_be_drawn_do_not_hide_why_the_run_ended(
    config: TrainConfig, changed: Changed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    real = loop.train_stream

    def stream(*args, **kwargs):
        (config.out / "curves.png").mkdir()  # no file takes the place of a folder
        yield next(real(*args, **kwargs))
        raise InputError("the reason")

    monkeypatch.setattr(loop, "train_stream", stream)
    with pytest.raises(InputError, match="the reason"):
        train(changed(config, log_every_steps=1))
    assert caplog.text.count(f"{config.out / 'curves.png'}: not drawn: Is a directory") == 1


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_no_such_state_is_saved(config: TrainConfig, changed: Changed):
    # The first steps of the warm-up are already too much; every step that is good is saved.
    config = changed(config, clipping=None, learning_rate=1e30, warmup=0.99, checkpoint_every_steps=1, ema_decay=None)
    with pytest.raises(InputError, match=r"step \d+: loss .*lower optimizer.learning_rate") as error:
        train(config)
    assert str(config.out) in str(error.value) and "\n" not in str(error.value)
    assert not (config.out / "checkpoint").exists()
    checkpoints = Checkpoints(config.out / "checkpoints", keep=2)
    last = checkpoints.latest()
    checkpoints.close()
    assert f"The last good checkpoint is {'none' if last is None else f'step {last}'}." in str(error.value)
    assert last is None or f"step {last + 1}" in str(error.value) or f"step {last + 2}" in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 18}, r"batch_size \(=18\) must be a multiple of 16, for 8 devices, pairs of .*; use 16 or 32"),
        ({"micro_batches": 3}, r"must be a multiple of 48, for 8 devices, micro_batches \(=3\), pairs .*; use 48"),
        ({"num_classes": 3}, r"num_classes \(=3\) is less than the 4 classes of"),
        ({"model": "dm_nfnet_f00"}, r"'dm_nfnet_f00' is no bundled checkpoint"),
        ({"frozen": ("stages.7",)}, r"optimizer.frozen: no parameter's name starts with 'stages.7'"),
        ({"frozen": ("stem", "stages", "final_conv", "head")}, r"leaves nothing to train"),
        ({"data": Path("nowhere")}, r"nowhere"),
        ({"sam_rho": 0.1, "sam_fraction": 0.25}, r"multiple of 64, for 8 devices, pairs of .*sam_fraction .*; use 64"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(config, changed: Changed, values, message: str):
    with pytest.raises(InputError, match=message):
        train(changed(config, **values))
    assert not config.out.exists()


def test_what_the_export_will_refuse_is_refused_before_anything_is_written(
    config: TrainConfig, changed: Changed, tmp_path: Path
):
    for split in ("train", "test"):
        with np.load(config.data / f"{split}.npz") as arrays:
            np.savez(tmp_path / f"{split}.npz", **arrays, classes=np.array(["a", "b\tb", "c", "d"]))
    with pytest.raises(InputError, match=r"plain text, got 'b\\tb'"):
        train(changed(config, data=tmp_path))
    assert not config.out.exists()
    (config.out / "checkpoint").mkdir(parents=True)
    (config.out / "run.json").write_text("{}")
    (config.out / "checkpoint" / "thesis.tex").write_text("...")
    with pytest.raises(InputError, match="thesis.tex"):
        train(config)
    assert (config.out / "run.json").read_text() == "{}"


def test_held_out_images_of_which_none_can_be_read_are_refused_before_the_first_step(
    config: TrainConfig, changed: Changed, tmp_path: Path
):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(16):
                file = tmp_path / part / name / f"{number}.png"
                Image.new("RGB", (16, 16), (number, 0, 0)).save(file)
                if part == "val":
                    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match="val.* none of 32 images of 32 can be read"):
        train(changed(config, data=tmp_path))
    assert not config.out.exists()


def test_a_kept_classifier_meets_its_own_classes_whatever_the_order_of_the_folders(
    config: TrainConfig, changed: Changed, tmp_path: Path
):
    names = np.array(nfx.from_pretrained(config.model).labels)
    order = np.array([2, 0, 3, 1])  # of the folders
    for split in ("train", "test"):
        with np.load(config.data / f"{split}.npz") as arrays:
            labels = np.argsort(order)[arrays["labels"]]
            np.savez(tmp_path / f"{split}.npz", images=arrays["images"], labels=labels, classes=names[order])
    run, _ = prepare(changed(config, keep_head=True, data=tmp_path), "")
    own, _ = prepare(changed(config, keep_head=True), "")  # without names: as the checkpoint numbers them
    assert run.about["labels"] == tuple(names)
    for ours, theirs in ((run.source, own.source), (run.held_out, own.held_out)):
        assert [ours[i].label for i in range(40)] == [theirs[i].label for i in range(40)]


def test_a_batch_is_never_larger_than_the_data(config: TrainConfig, changed: Changed, caplog: pytest.LogCaptureFixture):
    run, _ = prepare(changed(config, batch_size=2048, epochs=3), "")
    assert (run.config.batch_size, run.total_steps) == (64, round(3 * 96 / 64))  # of 96 images
    assert "batch_size (=2048) is more than the 96 images; 64 here" in caplog.text
    # One that cannot be divided would be refused, and what that advises would be more than the data again.
    run, _ = prepare(changed(config, batch_size=2048, micro_batches=20, eval_every_epochs=1), "")
    assert run.config.batch_size == 2 * 8 * 20  # pairs, devices, micro-batches


def test_a_folder_without_pictures_is_refused(config: TrainConfig, changed: Changed, tmp_path: Path):
    (tmp_path / "empty" / "train" / "cats").mkdir(parents=True)
    with pytest.raises(InputError, match="empty"):
        train(changed(config, data=tmp_path / "empty"))


def test_a_disk_that_is_too_small_is_refused_before_the_first_step(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    free = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("nfnet_eqx.train._run.shutil.disk_usage", lambda path: free)
    with pytest.raises(InputError, match=r"GB are free, and the checkpoints of this run need .*; make room"):
        train(config)
    assert not config.out.exists()
