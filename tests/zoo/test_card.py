"""Cards: what is known and nothing else, read by the Hub's own client, safe whatever the names are."""

import dataclasses
import html
import re
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from nfnet_eqx import Checkpoint, NFNet, NFNetConfig, Preprocess, create_model
from nfnet_eqx._errors import InputError
from nfnet_eqx.zoo import card as module
from nfnet_eqx.zoo.card import write_card
from nfnet_eqx.zoo.hub import from_pretrained

TINY = NFNetConfig(
    depths=(1,),
    widths=(16,),
    stem_widths=(8,),
    stem_strides=(2,),
    stage_strides=(2,),
    group_size=8,
    num_classes=3,
)
MODEL = NFNet(TINY, key=jax.random.key(0))
CHECKPOINT = Checkpoint(model=MODEL, preprocess=Preprocess(input_size=(32, 32)), architecture="tiny")
UNKNOWN: dict[str, Any] = {"training": None, "results": None, "dataset": None, "base_model": None}
HUB_ID = "timm/dm_nfnet_f0.dm_in1k"


def card(folder: Path, ckpt: Checkpoint = CHECKPOINT, **known: Any) -> tuple[Any, str]:
    """What the Hub's client reads in the front matter, and the text below it."""
    write_card(folder, ckpt, **UNKNOWN | known)
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    read = ModelCard.load(folder / "README.md")
    assert "---" not in read.text.split("\n"), "the front matter goes on below"
    return read.data, read.text


def shapes(architecture: str) -> NFNet:
    """A network of which a card needs no more than the shapes."""
    return eqx.filter_eval_shape(lambda: create_model(architecture, key=jax.random.key(0)))


def test_a_card_states_everything_that_is_known(tmp_path: Path):
    ckpt = dataclasses.replace(CHECKPOINT, labels=("cat", "dog", "frog"), about={"license": "apache-2.0"})
    training = {"epochs": 2.5, "optimizer": {"learning_rate": 0.1, "frozen": ("stem", "stages.0"), "ema_decay": None}}
    results = {"top1": 91.23456, "top5": 100, "loss": 0.123456}
    data, text = card(
        tmp_path, ckpt, training=training, results=results, dataset="cifar10", base_model=f"{HUB_ID}@{'0' * 40}"
    )
    found = data.to_dict()
    assert found["library_name"] == "nfnet-eqx"
    assert found["pipeline_tag"] == "image-classification"
    assert found["license"] == "apache-2.0"
    assert {"jax", "equinox", "nfnet", "safetensors"} < set(found["tags"])
    assert found["datasets"] == ["cifar10"]
    assert (found["base_model"], found["base_model_relation"]) == (HUB_ID, "finetune")
    assert data.model_name == "tiny"
    assert [(r.metric_name, r.metric_type, r.metric_value) for r in data.eval_results] == [
        ("Top-1", "accuracy", 91.23),
        ("Top-5", "accuracy", 100.0),
        ("Loss", "loss", 0.1235),
    ]
    assert {(r.dataset_type, r.dataset_name, r.task_type) for r in data.eval_results} == {
        ("cifar10", "cifar10", "image-classification")
    }
    for line in (
        "# tiny",
        f"Fine-tuned from [{HUB_ID}](https://huggingface.co/{HUB_ID}) on cifar10.",
        "| Top-1 | 91.23 % |",
        "| Loss | 0.1235 |",
        "3 classes: cat, dog, frog.",
        "| `epochs` | 2.5 |",
        "| `optimizer.learning_rate` | 0.1 |",
        "| `optimizer.frozen` | stem, stages.0 |",
        "| `optimizer.ema_decay` | none |",
        "| `mean` | 0.485, 0.456, 0.406 |",
    ):
        assert line in text.splitlines(), line
    assert "2102.06171" in text and "2310.16764" in text


def test_a_card_states_nothing_that_is_not_known(tmp_path: Path):
    data, text = card(tmp_path)
    found = {name for name, value in data.to_dict().items() if value is not None}
    assert found == {"library_name", "pipeline_tag", "tags"}
    assert "## Training" not in text and " %" not in text.replace("87.5 %", "")
    assert "How good it is was not measured." in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_result_that_is_no_number_is_not_stated(value: float, tmp_path: Path):
    data, text = card(tmp_path, results={"top1": 10.0, "loss": value}, dataset="digits")
    assert [r.metric_name for r in data.eval_results] == ["Top-1"]
    assert "Loss" not in text
    data, _ = card(tmp_path, results={"loss": value}, dataset="digits")
    assert data.eval_results is None


def test_results_on_unnamed_data_are_in_the_text_alone(tmp_path: Path):
    data, text = card(tmp_path, results={"top1": 12.5})
    assert data.eval_results is None
    assert "| Top-1 | 12.50 % |" in text


def test_a_result_of_another_kind_is_refused_and_nothing_is_written(tmp_path: Path):
    with pytest.raises(InputError, match="unknown top1_real; a card states top1, top5, loss"):
        write_card(tmp_path, CHECKPOINT, **UNKNOWN | {"results": {"top1": 1.0, "top1_real": 2.0}})
    assert list(tmp_path.iterdir()) == []


def test_a_path_of_this_machine_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    folder = tmp_path / "card"
    folder.mkdir()
    secret = str(tmp_path / "secret" / "flowers")
    training = {"data": Path(secret), "out": secret, "more": [secret, "runs/first"]}
    data, text = card(folder, training=training, results={"top1": 1.0}, dataset=secret, base_model="runs/first")
    assert str(tmp_path) not in text + data.to_yaml() and "runs/" not in text + data.to_yaml()
    assert "Fine-tuned from first on flowers." in text
    assert data.base_model is None and data.datasets is None
    assert [r.dataset_name for r in data.eval_results] == ["flowers"]
    assert "| `more` | flowers, first |" in text


@pytest.mark.parametrize("license", ["my own\nterms", 7, "<b>", ""])
def test_a_license_that_the_hub_cannot_know_is_left_out(license: Any, tmp_path: Path):
    data, text = card(tmp_path, dataclasses.replace(CHECKPOINT, about={"license": license}))
    assert data.license is None
    assert "own" not in text


@pytest.mark.parametrize(
    ("architecture", "opens"), [("test_nfnet", True), ("nf_regnet_b0", True), ("dm_nfnet_f0_plus", False)]
)
def test_the_card_says_that_timm_opens_the_checkpoint_only_where_it_does(
    architecture: str, opens: bool, tmp_path: Path
):
    model = shapes(architecture)
    _, text = card(tmp_path, dataclasses.replace(CHECKPOINT, model=model, architecture=architecture))
    assert ("timm.create_model(" in text) is opens
    assert ("cannot open" in text) is not opens
    assert "its outputs differ slightly" not in text


def test_of_many_classes_only_some_are_named(tmp_path: Path):
    model = shapes("test_nfnet")
    labels = tuple(f"name {i}" for i in range(1000))
    _, text = card(tmp_path, dataclasses.replace(CHECKPOINT, model=model, labels=labels))
    assert "name 19 and 980 more, all in `ckpt.labels`." in text


def test_a_network_without_a_classifier_gives_features(tmp_path: Path):
    model = NFNet(dataclasses.replace(TINY, num_classes=0), key=jax.random.key(0))
    data, text = card(tmp_path, dataclasses.replace(CHECKPOINT, model=model))
    assert data.pipeline_tag == "image-feature-extraction"
    assert "ckpt.classify" not in text and "classes" not in text


def test_the_bundled_checkpoint_gets_a_card(tmp_path: Path):
    ckpt = from_pretrained("nfnet_cifar10")
    data, text = card(tmp_path, ckpt, results={"top1": 88.5}, dataset="cifar10")
    assert "1,368,615 parameters, 47.6 million multiply-adds for a picture of 32 x 32." in text
    assert data.license == "apache-2.0"


EVIL = [
    "<script>alert(1)</script>",
    "a | b\n\n---\n# c",
    "[x](javascript:alert(1)) ![y](http://z)",
    "`code` *bold* __init__ ~~s~~ $x$",
    "&lt;b&gt; \\",
    "key: [yaml, {a: b}] # c",
    "\x1b[31m\u2028\u202e\ud800é 😀",
]


@pytest.mark.parametrize("text", EVIL)
def test_text_from_outside_adds_no_line_and_no_markup_to_the_card(text: str, tmp_path: Path):
    quiet = dataclasses.replace(CHECKPOINT, labels=("a", "b", "c"))
    loud = dataclasses.replace(CHECKPOINT, labels=(text, text, "c"), architecture=f"tiny {text}")
    known = {"training": {"a b": "b"}, "dataset": "c d", "base_model": "d e"}
    evil = {"training": {f"a {text}": text}, "dataset": f"c {text}", "base_model": f"d {text}"}
    _, expected = card(tmp_path, quiet, results={"top1": 1.0}, **known)
    data, found = card(tmp_path, loud, results={"top1": 1.0}, **evil)
    assert [line[:2] for line in found.splitlines()] == [line[:2] for line in expected.splitlines()]
    assert markup(found) == markup(expected)
    assert data.library_name == "nfnet-eqx" and data.model_name.startswith("tiny")
    assert [r.metric_value for r in data.eval_results] == [1.0]


@given(st.text())
def test_any_text_is_one_printable_line_without_markup_that_reads_as_before(text: str):
    shown = module._text(text)
    assert markup(shown) == []
    assert all(c.isprintable() for c in shown)
    read = html.unescape(re.sub(r"\\([\\`*\[\]|~$_])", r"\1", shown))
    assert read == module._plain(text)


def markup(text: str) -> list[str]:
    """What Markdown would obey, wherever in a line, after what is escaped is taken away."""
    text = re.sub(r"&(?:lt|gt|amp);", "", re.sub(r"\\[\\`*\[\]|~$_]", "", text))
    return re.findall(r"[<>&`*\[\]|~$\\_]", re.sub(r"(?<=[^\W_])_+(?=[^\W_])", "", text))
