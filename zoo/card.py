"""The card of a checkpoint: a README.md that says what it is, how to use it, and what was measured on it."""

import dataclasses
import html
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nfnet_eqx._count import count
from nfnet_eqx._errors import InputError
from nfnet_eqx.convert._files import replacing
from nfnet_eqx.convert.timm import config_to_timm
from nfnet_eqx.zoo.checkpoint import Checkpoint
from nfnet_eqx.zoo.preprocess import Preprocess

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

_PAPERS = """\
- Brock, De, Smith and Simonyan, "High-Performance Large-Scale Image Recognition Without Normalization", 2021
  ([2102.06171](https://arxiv.org/abs/2102.06171)): the networks, and adaptive gradient clipping
- Smith, Brock, Berrada and De, "ConvNets Match Vision Transformers at Scale", 2023
  ([2310.16764](https://arxiv.org/abs/2310.16764)): what they reach with more compute"""


def write_card(
    folder: str | os.PathLike[str],
    ckpt: Checkpoint,
    *,
    training: Mapping[str, Any] | None,
    results: Mapping[str, float] | None,
    dataset: str | None,
    base_model: str | None,
) -> None:
    """Writes the card of a checkpoint into its folder, as the Hub shows it.

    The card states what is known and nothing else: no licence, data set, base model or result that was not given. Text
    from outside stays text, whatever it looks like, and of a path on this machine only the last part is shown.

    Args:
        folder: the checkpoint's; a card that it holds is replaced.
        ckpt: the checkpoint.
        training: the settings of its training, nested as they may be.
        results: `top1` and `top5` in percent, and `loss`, measured on the evaluation part of `dataset`; what is no
            finite number is left out.
        dataset: what it was trained on: an id on the Hub, a path, or a name.
        base_model: the checkpoint that it was fine-tuned from: an id on the Hub, a path, or a name.

    Raises:
        InputError: a result is none of these, or the checkpoint's pictures are too small for its network.
    """
    unknown = [name for name in results or {} if name not in _MEASURES]
    if unknown:
        raise InputError(f"results: unknown {', '.join(unknown)}; a card states {', '.join(_MEASURES)}")
    measured = {name: float(value) for name, value in (results or {}).items() if math.isfinite(value)}
    sections = [
        f"---\n{_front_matter(ckpt, measured, dataset, base_model)}---\n# {_text(ckpt.architecture)}",
        *_summary(ckpt, measured, dataset, base_model),
        "## Use",
        *_use(ckpt),
        "## Preprocessing",
        _preprocessing(ckpt.preprocess),
        *(["## Training", _training(training)] if training else []),
        "## Limits",
        _limits(ckpt, measured),
        "## References",
        _PAPERS,
    ]
    with replacing(Path(folder) / CARD_NAME) as unfinished:
        unfinished.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _front_matter(ckpt: Checkpoint, measured: Mapping[str, float], dataset: str | None, base_model: str | None) -> str:
    """What the Hub reads, as YAML of its own client."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "image-classification" if ckpt.config.num_classes else "image-feature-extraction"
    licence = ckpt.about.get("license")
    base, data = _hub_model(base_model), _hub_dataset(dataset)
    results = []
    if dataset:
        name = _plain(_shown(dataset))
        kind = data or re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "pictures"
        for measure, value in measured.items():
            words, metric, digits, _ = _MEASURES[measure]
            results.append(EvalResult(task, kind, name, metric, round(value, digits), metric_name=words))
    return ModelCardData(
        library_name="nfnet-eqx",
        pipeline_tag=task,
        license=licence if isinstance(licence, str) and _LICENSE.fullmatch(licence) else None,
        tags=[task, "jax", "equinox", "nfnet", "safetensors"],
        datasets=[data] if data else None,
        base_model=base,
        base_model_relation="finetune" if base else None,
        metrics=["accuracy"] if results else None,
        model_name=_plain(ckpt.architecture) if results else None,
        eval_results=results or None,
    ).to_yaml() + "\n"  # fmt: skip


def _summary(
    ckpt: Checkpoint, measured: Mapping[str, float], dataset: str | None, base_model: str | None
) -> Iterator[str]:
    size, classes = ckpt.preprocess.size(use_test_size=True), ckpt.config.num_classes
    parameters, macs = count(ckpt.config, size)
    yield (
        f"A normalizer-free network (NFNet) for {'the classification of pictures' if classes else 'image features'}: "
        f"{parameters:,} parameters, {_large(macs)} multiply-adds for a picture of {_size(size)}."
    )
    if base_model or dataset:
        how = f"Fine-tuned from {_link(base_model)}" if base_model else "Trained"
        yield how + (f" on {_text(_shown(dataset))}." if dataset else ".")
    if measured:
        rows = [
            f"| {words} | {measured[name]:.{digits}f}{unit} |"
            for name, (words, _, digits, unit) in _MEASURES.items()
            if name in measured
        ]
        where = f" of {_text(_shown(dataset))}" if dataset else ""
        yield "\n".join([f"| on the evaluation pictures{where} | |", "| --- | --- |", *rows])
    if classes:
        names = [_text(label) for label in (ckpt.labels or ())[:_MOST_LABELS]]
        more = f" and {classes - len(names):,} more, all in `ckpt.labels`" if names and classes > len(names) else ""
        yield f"{classes:,} classes{': ' if names else ''}{', '.join(names)}{more}."


def _use(ckpt: Checkpoint) -> Iterator[str]:
    call = 'ckpt.classify("photo.jpg", top=5)'
    if not ckpt.config.num_classes:
        call = 'features = ckpt.model(ckpt.preprocess("photo.jpg"))'
    yield (
        "```python\nimport nfnet_eqx as nfx\n\n"
        'ckpt = nfx.from_pretrained("path/to/this/folder")  # or its id on the Hub\n'
        f"{call}\n```"
    )
    try:
        config_to_timm(ckpt.architecture, dataclasses.replace(ckpt.config, numerics="timm"))
    except InputError:
        yield "timm has no such network and cannot open the checkpoint."
        return
    yield "timm opens it too:"
    yield (
        "```python\nimport timm\n\n"
        'model = timm.create_model("local-dir:path/to/this/folder", pretrained=True)  # or "hf-hub:" and its id\n```'
    )
    if ckpt.config.numerics == "deepmind":
        yield "timm computes with its own numerics, not DeepMind's: its outputs differ slightly."


def _preprocessing(how: Preprocess) -> str:
    height, width = size = how.size(use_test_size=True)
    crop_pct = how.test_crop_pct or how.crop_pct
    if how.resize == "deepmind":
        resize = (
            f"cubic without antialiasing to {height + 32} x {width + 32}, whatever the shape; the middle is kept "
            "(DeepMind's evaluation; timm only comes near)"
        )
    else:
        fitted = {
            "center": "the shorter side fitted",
            "border": "the longer side fitted",
            "squash": "both sides fitted",
        }
        resize = f"{how.interpolation}, {fitted[how.crop_mode]}; the middle {100 * min(crop_pct, 1):g} % is kept"
    rows = {"size": f"{_size(size)}, RGB", "resize": resize, "mean": _list(how.mean), "std": _list(how.std)}
    if size != how.input_size:
        rows["size"] += f" (in training {_size(how.input_size)})"
    return _table("field", "value", rows) + "\n\n`ckpt.preprocess` does this."


def _training(settings: Mapping[str, Any]) -> str:
    return _table("setting", "value", dict(_flat(settings)))


def _flat(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each setting; those of a nested one follow a dot."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _list(value) if isinstance(value, list | tuple) else _value(value)


def _limits(ckpt: Checkpoint, measured: Mapping[str, float]) -> str:
    limits = []
    if ckpt.config.num_classes:
        limits.append("- It answers with one of its classes, whatever a picture shows.")
    if measured:
        limits.append("- The numbers hold for pictures like those that they were measured on, and for no others.")
    else:
        limits.append("- How good it is was not measured.")
    limits.append(
        "- What its training pictures show too much or too little of, it has learned; nobody has looked for it."
    )
    return "\n".join(limits)


def _table(left: str, right: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {_code(name)} | {_text(value)} |" for name, value in rows.items()]
    return "\n".join([f"| {left} | {right} |", "| --- | --- |", *lines])


def _list(values: Any) -> str:
    return ", ".join(map(_value, values)) or "none"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return _shown(os.fspath(value)) if isinstance(value, str | os.PathLike) else str(value)


def _shown(name: str) -> str:
    """A name; of a path on this machine, which is nobody else's business, the last part."""
    return os.path.basename(name.rstrip(os.sep)) if os.path.isabs(name) or _is_path(name) else name


def _is_path(name: str) -> bool:
    return os.sep in name and os.path.exists(name)


def _hub_model(name: str | None) -> str | None:
    match = _HUB_MODEL.fullmatch(name or "")
    return match[1] if match and not _is_path(match[0]) else None


def _hub_dataset(name: str | None) -> str | None:
    match = _HUB_DATASET.fullmatch(name or "")
    return match[0] if match and not _is_path(match[0]) else None


def _link(model: str) -> str:
    hub = _hub_model(model)
    return f"[{_text(hub)}](https://huggingface.co/{hub})" if hub else _text(_shown(model))


def _plain(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())


def _text(text: str) -> str:
    """Text that Markdown and HTML show as it is; it never stands at the start of a line."""
    return re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", html.escape(_plain(text), quote=False))


def _code(name: str) -> str:
    return f"`{name}`" if re.fullmatch(r"[\w.-]+", name, re.ASCII) else _text(name)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _large(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"
