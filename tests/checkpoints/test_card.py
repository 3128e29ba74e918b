"""Cards: what is known and nothing else, read by the Hub's own client, safe whatever the names are."""

import dataclasses
import html
import re
import unicodedata
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from nfnet_eqx import Checkpoint, NFNet, NFNetConfig, Preprocess, create_model
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import _card as module
from nfnet_eqx.checkpoints import _markdown
from nfnet_eqx.checkpoints._card import Conversion, History, card_on_hub, write_card
from nfnet_eqx.checkpoints._checkpoint import Origin
from nfnet_eqx.zoo._hub import from_pretrained

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
HUB_ID = "timm/dm_nfnet_f0.dm_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGESTS = {"config.json": "a" * 64, "model.safetensors": "b" * 64}


def card(folder: Path, ckpt: Checkpoint = CHECKPOINT, **known: Any) -> tuple[Any, str]:
    """What the Hub's client reads in the front matter, and the text below it."""
    write_card(folder, ckpt, History(**known))
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    read = ModelCard.load(folder / "README.md")
    assert "---" not in read.text.split("\n"), "the front matter goes on below"
    return read.data, read.text


def front_matter(folder: Path) -> Any:
    """What any reader of YAML finds in the front matter of the card in a folder."""
    opening, matter = (folder / "README.md").read_text(encoding="utf-8").split("\n---\n")[0].split("\n", 1)
    assert opening == "---"
    return yaml.safe_load(matter)


def conversion(name: str = HUB_ID, commit: str | None = COMMIT, **known: Any) -> Conversion:
    given = {"numerics": "timm", "compared": "all 2 tensors to the bit", "difference": 0.0} | known
    return Conversion(source=Origin(name, commit, DIGESTS), **given)


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
    assert text.index("```bibtex") < text.index("arXiv:2102.06171") < text.index("arXiv:2310.16764")
    assert "apache-2.0, as the checkpoint's own configuration states it." in text


def test_a_card_states_nothing_that_is_not_known(tmp_path: Path):
    data, text = card(tmp_path)
    found = {name for name, value in data.to_dict().items() if value is not None}
    assert found == {"library_name", "pipeline_tag", "tags"}
    assert not re.search("## (Training|Provenance|Licence)", text) and " %" not in text.replace("87.5 %", "")
    assert "How good it is was not measured here." in text


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
        write_card(tmp_path, CHECKPOINT, History(results={"top1": 1.0, "top1_real": 2.0}))
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


def test_a_conversion_is_told_with_what_was_compared(tmp_path: Path):
    data, text = card(tmp_path, conversion=conversion())
    found = data.to_dict()
    assert found["base_model"] == HUB_ID and "base_model_relation" not in found, (
        "it is the same model, in another format"
    )
    link = f"[{HUB_ID}](https://huggingface.co/{HUB_ID})"
    for line in (
        f"Converted from {link} by nfnet_eqx, as told under Provenance.",
        f"| `model.safetensors` | {'b' * 64} |",
        "What was written was read back, and nfnet-eqx compared all 2 tensors to the bit: no difference.",
    ):
        assert line in text.splitlines(), line
    made = rf"Converted by nfnet-eqx \S+ from {re.escape(link)}, commit {COMMIT}; its parameters are unchanged\."
    assert re.search(f"^{made}$", text, re.MULTILINE)


def test_a_conversion_that_changed_the_gains_says_so(tmp_path: Path):
    _, text = card(tmp_path, conversion=conversion(numerics="deepmind", compared="the outputs", difference=0.00012345))
    assert "; its gains were multiplied so that timm's numerics compute what deepmind's did." in text
    assert "compared the outputs: they differ by at most 0.00012 of their largest value." in text


def test_a_converted_file_is_no_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "card"
    for name in ("card", "files"):
        (tmp_path / name).mkdir()
    (tmp_path / "files" / "F0_haiku.npz").touch()
    monkeypatch.chdir(tmp_path)
    for name, shown in (
        ("files/F0_haiku.npz", "F0_haiku.npz"),
        (str(tmp_path / "files" / "F0_haiku.npz"), "F0_haiku.npz"),
        (".", tmp_path.name),
    ):
        data, text = card(folder, conversion=conversion(name, None))
        assert data.base_model is None
        assert f" from {_markdown.text(shown)}; its parameters" in text
        assert "commit" not in text and "files/" not in text


def test_a_fine_tuned_network_that_was_converted_has_its_base(tmp_path: Path):
    data, _ = card(tmp_path, conversion=conversion("me/other"), base_model=HUB_ID)
    assert (data.base_model, data.base_model_relation) == (HUB_ID, "finetune")


def test_on_the_hub_the_examples_name_the_repository(tmp_path: Path):
    card(tmp_path, dataclasses.replace(CHECKPOINT, model=shapes("test_nfnet"), architecture="test_nfnet"))
    before = (tmp_path / "README.md").read_text()
    after = card_on_hub(before, "me/x")
    changed = [lines for lines in zip(before.splitlines(), after.splitlines(), strict=True) if lines[0] != lines[1]]
    assert [line for _, line in changed] == [
        'ckpt = nfx.from_pretrained("me/x")',
        'model = timm.create_model("hf-hub:me/x", pretrained=True)',
    ]
    assert "path/to/this/folder" not in after
    assert card_on_hub(after, "me/y") == after


@pytest.mark.parametrize(
    "theirs", ["", "---\nlicense: mit\n---\n# Mine\r\n\tpath/to/this/folder", 'nfx.from_pretrained("path/to/mine")']
)
def test_a_card_of_ones_own_is_left_as_it_is(theirs: str):
    assert card_on_hub(theirs, "me/x") == theirs


@pytest.mark.parametrize(
    "name",
    [
        "/home/me/flowers",
        "/mnt/flowers/",
        "~/flowers",
        "~me/flowers",
        "../me/flowers",
        "./flowers",
        "file:///home/me/flowers",
        "C:\\Users\\me\\flowers",
        "\\\\server\\me\\flowers",
    ],
)
def test_of_a_path_of_any_machine_the_last_part_is_shown(name: str, tmp_path: Path):
    training = {"data": name, "more": [{"from": name}], "nested": {"out": [name]}}
    known = {"training": training, "results": {"top1": 1.0}, "dataset": name, "base_model": name}
    data, text = card(tmp_path, **known, conversion=conversion(name, None))
    assert (data.datasets, data.base_model) == (None, None)
    assert [r.dataset_name for r in data.eval_results] == ["flowers"]
    whole = (tmp_path / "README.md").read_text()
    assert name not in whole and not re.search(r"\bme\b|home|Users|mnt|server", whole)
    assert "| `more` | from: flowers |" in text and "| `nested.out` | flowers |" in text


def test_no_secret_is_published(tmp_path: Path):
    token, address = "hf_" + "aB3" * 11, "https://me:pass@example.org/x"
    evil = f"{token} {address}"
    ckpt = dataclasses.replace(CHECKPOINT, labels=(token, address, "c"), architecture=evil)
    known = {"dataset": evil, "base_model": evil, "conversion": conversion(evil, None)}
    card(tmp_path, ckpt, results={"top1": 1.0}, training={token: token, "url": address}, **known)
    whole = (tmp_path / "README.md").read_text()
    assert "aB3" not in whole and "me:pass" not in whole and "https://example.org/x" in whole


EVIL = [
    "<script>alert(1)</script><!-- x -->",
    "a | b\n\n---\n# c",
    "---",
    "[x](javascript:alert(1)) ![y](http://z)",
    "`code` *bold* __init__ ~~s~~ $x$",
    "&lt;b&gt; \\",
    "key: [yaml, {a: b}] # c",
    "!!python/object/apply:os.system [id]",
    "&a *a \"'%@ | > - ? ,",
    "{{ config }} {% for %} ${HOME}",
    "a closed heading ##",
    "\x1b[31m\x00\u0085\u2028\u202e\u2066\ufeff\ud800é 😀",
]


@pytest.mark.parametrize("evil", EVIL)
def test_text_from_outside_adds_no_line_and_no_markup_to_the_card(evil: str, tmp_path: Path):
    def known(more: str) -> dict[str, Any]:
        source = Origin(f"e f{more}", f"g h{more}", {f"i j{more}": "a" * 64})
        return {
            "results": {"top1": 1.0},
            "training": {f"a b{more}": [{f"b c{more}": f"c d{more}"}]},
            "dataset": f"d e{more}",
            "base_model": f"e f{more}",
            "conversion": Conversion(source=source, numerics="timm", compared=f"it{more}", difference=0.0),
        }

    def checkpoint(more: str) -> Checkpoint:
        # What no label may hold, a checkpoint does not let in.
        plain = "".join(c for c in more if unicodedata.category(c) not in ("Cc", "Cs"))
        labels = (f"a{plain}", f"b{plain}", "c")
        about = {"license": f"l m{more}"}
        return dataclasses.replace(CHECKPOINT, labels=labels, architecture=f"tiny{more}", about=about)

    _, expected = card(tmp_path, checkpoint(""), **known(""))
    meant = front_matter(tmp_path)
    _, found = card(tmp_path, checkpoint(f" {evil}"), **known(f" {evil}"))
    assert [line[:2] for line in found.splitlines()] == [line[:2] for line in expected.splitlines()]
    assert markup(found) == markup(expected)
    (index,) = meant["model-index"]
    index["name"] = _markdown.plain(f"tiny {evil}")
    dataset = index["results"][0]["dataset"]
    dataset["name"] = _markdown.plain(f"d e {evil}")
    dataset["type"] = re.sub("[^a-z0-9]+", "-", dataset["name"].lower()).strip("-")
    assert front_matter(tmp_path) == meant


@given(st.text(), st.text())
def test_front_matter_reads_back_as_it_was_meant(architecture: str, dataset: str):
    ckpt = dataclasses.replace(CHECKPOINT, architecture=architecture)
    history = History(dataset=f"on {dataset}", base_model=dataset)
    written = module._front_matter(ckpt, history, {"top1": 12.344})
    assert "\n---" not in f"\n{written}"
    (index,) = yaml.safe_load(written)["model-index"]
    assert index["name"] == _markdown.plain(architecture)
    assert index["results"][0]["dataset"]["name"] == _markdown.plain(f"on {dataset}")
    assert index["results"][0]["metrics"] == [{"type": "accuracy", "value": 12.34, "name": "Top-1"}]


@given(st.text())
def test_any_text_is_one_printable_line_without_markup_that_reads_as_before(text: str):
    shown = _markdown.text(text)
    assert markup(shown) == []
    assert all(c.isprintable() for c in shown)
    read = html.unescape(re.sub(r"\\([\\`*\[\]|~$#_])", r"\1", shown))
    assert read == _markdown.plain(text)


def markup(text: str) -> list[str]:
    """What Markdown would obey, wherever in a line, after what is escaped is taken away."""
    text = re.sub(r"&(?:lt|gt|amp);", "", re.sub(r"\\[\\`*\[\]|~$#_]", "", text))
    return re.findall(r"[<>&`*\[\]|~$#\\_]", re.sub(r"(?<=[^\W_])_+(?=[^\W_])", "", text))
