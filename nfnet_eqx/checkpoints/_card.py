"""The card of a checkpoint: a README.md that says what it is, how to use it, and what was measured on it."""

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import replacing
from nfnet_eqx.checkpoints._checkpoint import Checkpoint, Origin, version
from nfnet_eqx.checkpoints._markdown import is_path, plain, shown, table, text, value
from nfnet_eqx.checkpoints._timm import config_to_timm
from nfnet_eqx.images import DEEPMIND_MARGIN, Preprocess
from nfnet_eqx.models import Numerics, count

CARD_NAME = "README.md"


class _Measure(NamedTuple):
    """How a result is written: in words, under the Hub's name, with so many digits, in a unit."""

    words: str
    metric: str
    digits: int
    unit: str


_MEASURES = {
    "top1": _Measure("Top-1", "accuracy", 2, " %"),
    "top5": _Measure("Top-5", "accuracy", 2, " %"),
    "loss": _Measure("Loss", "loss", 4, ""),
}

# Of many classes, this many are named.
_MOST_LABELS = 20

_HUB_MODEL = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(@[\w.-]+)?", re.ASCII)
_HUB_DATASET = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9.+-]+")

# How a card says to open what it lies beside, and what `card_on_hub` makes of that.
_OPEN = ('nfx.from_pretrained("path/to/this/folder")  # or its id on the Hub', 'nfx.from_pretrained("{}")')
_OPEN_IN_TIMM = (
    'timm.create_model("local-dir:path/to/this/folder", pretrained=True)  # or "hf-hub:" and its id',
    'timm.create_model("hf-hub:{}", pretrained=True)',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """What is known of the conversion that made a checkpoint.

    Attributes:
        source: what was converted.
        numerics: which function its parameters were made for.
        compared: what of it was compared with the converted checkpoint.
        difference: the largest difference that was found, on the scale of what differs.
    """

    source: Origin
    numerics: Numerics
    compared: str
    difference: float

    @property
    def finding(self) -> str:
        """What was compared, and how it differs."""
        if self.difference == 0:
            return f"compared {self.compared}: no difference"
        return f"compared {self.compared}: they differ by at most {self.difference:.2g} of their largest value"


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """What is known of how a checkpoint came to be; a card states no more.

    Attributes:
        training: the settings of its training, nested as they may be.
        results: `top1` and `top5` in percent, and `loss`, measured on the evaluation part of `dataset`; what is no
            finite number is left out.
        dataset: what it was trained on: an id on the Hub, a path, or a name.
        base_model: the checkpoint that it was fine-tuned from: an id on the Hub, a path, or a name.
        conversion: what it was converted from.
    """

    training: Mapping[str, Any] | None = None
    results: Mapping[str, float] | None = None
    dataset: str | None = None
    base_model: str | None = None
    conversion: Conversion | None = None


def write_card(folder: str | os.PathLike[str], ckpt: Checkpoint, history: History) -> None:
    """Writes the card of a checkpoint into its folder, as the Hub shows it.

    The card states what is known and nothing else: no licence, data set, base model or result that was not given. Text
    from outside stays text, whatever it looks like, and of a path on this machine only the last part is shown.

    Args:
        folder: the checkpoint's; a card that it holds is replaced.
        ckpt: the checkpoint.
        history: what is known of how it came to be.

    Raises:
        InputError: a result is of an unknown kind, or the checkpoint's pictures are too small for its network.
    """
    results = history.results or {}
    unknown = [name for name in results if name not in _MEASURES]
    if unknown:
        raise InputError(f"results: unknown {', '.join(unknown)}; a card states {', '.join(_MEASURES)}")
    measured = {name: float(number) for name, number in results.items() if math.isfinite(number)}
    licence = _licence(ckpt)
    sections = [
        f"---\n{_front_matter(ckpt, history, measured)}---\n# {text(ckpt.architecture)}",
        *_summary(ckpt, history, measured),
        "## Use",
        *_use(ckpt),
        "## Preprocessing",
        _preprocessing(ckpt.preprocess),
        *(["## Training", table("setting", "value", dict(_flat(history.training)))] if history.training else []),
        *(["## Provenance", *_provenance(ckpt, history.conversion)] if history.conversion else []),
        "## Limits",
        _limits(ckpt, measured),
        *(["## Licence", f"{text(licence)}, as the checkpoint's own configuration states it."] if licence else []),
        "## Citation",
        ckpt.config.CITATION,
    ]
    with replacing(Path(folder) / CARD_NAME) as unfinished:
        unfinished.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def card_on_hub(card: str, repo_id: str) -> str:
    """The text of a card whose examples open the checkpoint from the Hub instead of from its folder.

    Args:
        card: as `write_card` writes it; in any other, what it does not write is left as it is.
        repo_id: `"org/name"`.
    """
    for here, there in (_OPEN, _OPEN_IN_TIMM):
        card = card.replace(here, there.format(repo_id))
    return card


def _front_matter(ckpt: Checkpoint, history: History, measured: Mapping[str, float]) -> str:
    """What the Hub reads, as YAML of its own client."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "image-classification" if ckpt.config.num_classes else "image-feature-extraction"
    dataset = history.dataset
    base, data = _hub_model(history.base_model), _hub_dataset(dataset)
    # A conversion is the same model in another format, for which the Hub has no relation.
    same = _hub_model(str(history.conversion.source)) if history.conversion else None
    results = []
    if dataset:
        name = plain(shown(dataset))
        kind = data or re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "pictures"
        for measure, number in measured.items():
            words, metric, digits, _ = _MEASURES[measure]
            results.append(EvalResult(task, kind, name, metric, round(number, digits), metric_name=words))
    return ModelCardData(
        library_name="nfnet-eqx",
        pipeline_tag=task,
        license=_licence(ckpt),
        tags=[task, "jax", "equinox", ckpt.config.FAMILY.lower(), "safetensors"],
        datasets=[data] if data else None,
        base_model=base or same,
        base_model_relation="finetune" if base else None,
        metrics=["accuracy"] if results else None,
        model_name=plain(ckpt.architecture) if results else None,
        eval_results=results or None,
    ).to_yaml() + "\n"  # fmt: skip


def _licence(ckpt: Checkpoint) -> str | None:
    licence = ckpt.about.get("license")
    return licence if isinstance(licence, str) and _LICENSE.fullmatch(licence) else None


def _summary(ckpt: Checkpoint, history: History, measured: Mapping[str, float]) -> Iterator[str]:
    size, classes = ckpt.preprocess.size(use_test_size=True), ckpt.config.num_classes
    parameters, macs = count(ckpt.config, size)
    yield (
        f"A {ckpt.config.DESCRIPTION} for {'the classification of pictures' if classes else 'image features'}: "
        f"{parameters:,} parameters, {_large(macs)} multiply-adds for a picture of {_size(size)}."
    )
    dataset, base_model = history.dataset, history.base_model
    if base_model or dataset:
        how = f"Fine-tuned from {_link(base_model)}" if base_model else "Trained"
        yield how + (f" on {text(shown(dataset))}." if dataset else ".")
    if history.conversion:
        yield f"Converted from {_link(str(history.conversion.source))} by nfnet_eqx, as told under Provenance."
    if measured:
        rows = [
            f"| {words} | {measured[name]:.{digits}f}{unit} |"
            for name, (words, _, digits, unit) in _MEASURES.items()
            if name in measured
        ]
        where = f" of {text(shown(dataset))}" if dataset else ""
        yield "\n".join([f"| on the evaluation pictures{where} | |", "| --- | --- |", *rows])
    if classes:
        names = [text(label) for label in (ckpt.labels or ())[:_MOST_LABELS]]
        more = f" and {classes - len(names):,} more, all in `ckpt.labels`" if names and classes > len(names) else ""
        yield f"{classes:,} classes{': ' if names else ''}{', '.join(names)}{more}."


def _use(ckpt: Checkpoint) -> Iterator[str]:
    call = 'ckpt.classify("photo.jpg", top=5)'
    if not ckpt.config.num_classes:
        call = 'features = ckpt.model(ckpt.preprocess("photo.jpg"))'
    yield (f"```python\nimport nfnet_eqx as nfx\n\nckpt = {_OPEN[0]}\n{call}\n```")
    try:
        config_to_timm(ckpt.architecture, ckpt.config.with_numerics("timm"))
    except InputError:
        yield "timm has no such network and cannot open the checkpoint."
        return
    yield "timm opens it too:"
    yield f"```python\nimport timm\n\nmodel = {_OPEN_IN_TIMM[0]}\n```"
    if ckpt.config.numerics == "deepmind":
        yield "timm computes with its own numerics, not DeepMind's: its outputs differ slightly."


def _preprocessing(how: Preprocess) -> str:
    size = how.size(use_test_size=True)
    crop_pct = how.test_crop_pct or how.crop_pct
    if how.resize == "deepmind":
        resize = (
            f"cubic without antialiasing to {_size((size[0] + DEEPMIND_MARGIN, size[1] + DEEPMIND_MARGIN))}, whatever "
            "the shape; the middle is kept (DeepMind's evaluation; timm only comes near)"
        )
    else:
        fitted = {
            "center": "the shorter side fitted",
            "border": "the longer side fitted",
            "squash": "both sides fitted",
        }
        resize = f"{how.interpolation}, {fitted[how.crop_mode]}; the middle {100 * min(crop_pct, 1):g} % is kept"
    rows = {"size": f"{_size(size)}, RGB", "resize": resize, "mean": value(how.mean), "std": value(how.std)}
    if size != how.input_size:
        rows["size"] += f" (in training {_size(how.input_size)})"
    return table("field", "value", rows) + "\n\n`ckpt.preprocess` does this."


def _flat(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each setting; those of a nested one follow a dot."""
    for key, setting in settings.items():
        if isinstance(setting, Mapping):
            yield from _flat(setting, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value(setting)


def _provenance(ckpt: Checkpoint, conversion: Conversion) -> Iterator[str]:
    source, ours, theirs = conversion.source, ckpt.config.numerics, conversion.numerics
    commit = f", commit {text(source.commit)}" if source.commit else ""
    parameters = "its parameters are unchanged"
    if ours != theirs:
        parameters = f"its gains were multiplied so that {ours}'s numerics compute what {theirs}'s did"
    yield f"Converted by nfnet-eqx {version()} from {_link(str(source))}{commit}; {parameters}."
    if source.sha256:
        yield table("file", "sha256", source.sha256)
    yield f"What was written was read back, and nfnet-eqx {text(conversion.finding)}."


def _limits(ckpt: Checkpoint, measured: Mapping[str, float]) -> str:
    limits = []
    if ckpt.config.num_classes:
        limits.append("- It answers with one of its classes, whatever a picture shows.")
    if measured:
        limits.append("- The numbers hold for pictures like those that they were measured on, and for no others.")
    else:
        limits.append("- How good it is was not measured here.")
    limits.append(
        "- What its training pictures show too much or too little of, it has learned; nobody has looked for it."
    )
    return "\n".join(limits)


def _hub_model(name: str | None) -> str | None:
    match = _HUB_MODEL.fullmatch(name or "")
    return match[1] if match and not is_path(match[0]) else None


def _hub_dataset(name: str | None) -> str | None:
    match = _HUB_DATASET.fullmatch(name or "")
    return match[0] if match and not is_path(match[0]) else None


def _link(model: str) -> str:
    hub = _hub_model(model)
    return f"[{text(hub)}](https://huggingface.co/{hub})" if hub else text(shown(model))


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _large(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"
