"""`nfnet-eqx scaling plan`: which network, how long and at which learning rate, for a budget."""

import json as json_format
from collections.abc import Iterator
from pathlib import Path

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import read_json
from nfnet_eqx.cli._text import name, pad, width
from nfnet_eqx.models import DEVICES
from nfnet_eqx.scaling import Candidate, ComputePlan, Estimate, Fit, read_points
from nfnet_eqx.scaling import plan as make_plan


def plan(
    *,
    budget: str,
    fit: Path | None = None,
    results: Path | None = None,
    images: float | None = None,
    models: str | None = None,
    image_size: int | None = None,
    device: str | None = None,
    utilisation: float | None = None,
    price_per_hour: float | None = None,
    recipe: str = "web",
    json: bool = False,
) -> None:
    """Print which network to train with a budget, for how many epochs and at which learning rate, and what it costs.

    Without a fit the numbers that 2310.16764 states choose. What is extrapolated, and what is our arithmetic and not
    the source's, is printed as well.

    Examples:
        nfnet-eqx scaling plan --budget "5000 tpu-v4-core-hours" --price-per-hour 2.5
        nfnet-eqx scaling plan --budget "64 H100-hours" --images 1.28e6
        nfnet-eqx scaling plan --budget 1e16 --fit fit.json --results runs/study/results.jsonl --recipe cifar10

    Args:
        budget: FLOPs (1e21), or time of a device ("64 H100-hours", "3 a100-days", "5000 tpu-v4-core-hours").
        fit: what `nfnet-eqx scaling fit` saved, of a form that knows sizes; instead of the paper's numbers.
        results: the runs behind the fit, for their learning rates.
        images: how many images your data has; an epoch is a pass over them. By default 4 billion as in the paper, or
            those of the fit.
        models: choose among the architectures that match this shell-style pattern (quote it); by default the paper's,
            or those of the fit.
        image_size: side of the images in pixels; by default 224, or that of the fit's runs.
        device: what a budget of FLOPs is spent on, for its hours; by default an H100.
        utilisation: the share of the device's peak that training reaches. By default 0.355 on TPUs, which the paper's
            core hours imply, and 0.2 on GPUs, where NFNets reach about half of a ViT's; measure yours.
        price_per_hour: of one device, in any currency.
        recipe: of the command that is printed.
        json: print JSON instead of words.

    Raises:
        InputError: the budget, a file, or anything else cannot be used.
    """
    made = make_plan(
        budget,
        fit=None if fit is None else _read_fit(fit),
        results=() if results is None else read_points(results),
        images=images,
        models=models,
        image_size=image_size,
        device=device,
        utilisation=utilisation,
        price_per_hour=price_per_hour,
        recipe=recipe,
    )
    print(json_format.dumps(made.to_json(), indent=2, allow_nan=False) if json else "\n".join(_lines(made)))


def _read_fit(path: Path) -> Fit:
    try:
        return Fit.from_json(read_json(path))
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def _lines(made: ComputePlan) -> Iterator[str]:
    budget, chosen = made.budget, made.chosen
    cost = f"{budget.flops:.3g} FLOPs, {budget.hours:,.4g} hours of one {DEVICES[budget.device].name}"
    price = "" if made.price is None else f": {made.price:,.2f} at the price of an hour"
    yield f"budget         {cost} at a utilisation of {budget.utilisation:g}{price}"
    size = "" if made.image_size is None else f", at {made.image_size} pixels"
    yield f"data           {made.data_images:,.0f} images an epoch{size}"
    yield f"source         {made.source}"
    parameters, images = (_number(made.optimum.parameters), _number(made.optimum.images))
    yield f"best size      {parameters} parameters, {images} images seen, if there were networks of every size"
    yield ""
    yield from _table(made)
    yield ""
    rates = [f"{rate:g}" for rate in made.learning_rates]
    if rates:
        at = " and ".join(f"{16 * rate:g}" for rate in made.learning_rates)
        yield f"learning rate  {', then '.join(rates)}; keep the better (for a batch of 256; at 4096: {at})"
    else:
        yield "learning rate  not known: the fit's runs do not state theirs"
    for title, words in (("the fit says", made.notes), ("extrapolated", made.extrapolated), ("ours", made.derived)):
        for n, line in enumerate(words):
            yield f"{title if n == 0 else '':15}{line}"
    yield ""
    if made.command:
        yield made.command
    else:
        lists = f"epochs = [{chosen.epochs:.4g}]" + (f" and learning_rates = [{', '.join(rates)}]" if rates else "")
        yield f"{name(chosen.model)} is no architecture of nfnet-eqx list: train it by the sweep's file, with {lists}"


def _table(made: ComputePlan) -> Iterator[str]:
    rows = [["", "network", "parameters", "FLOPs/image", "images", "epochs"]]
    rows += [_row(candidate, candidate == made.chosen) for candidate in made.candidates]
    if made.chosen.loss is not None:
        rows[0] += ["loss", "best in"]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (pad(cell, w) if n < 2 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(cells).rstrip()


def _row(candidate: Candidate, chosen: bool) -> list[str]:
    cells = [
        ">" if chosen else "",
        name(candidate.model),
        f"{candidate.parameters:,.0f}",
        f"{candidate.flops_per_image:.4g}",
        f"{candidate.images:.4g}",
        f"{candidate.epochs:.4g}",
    ]
    if candidate.loss is not None:
        best = "" if candidate.best_in is None else f"{100 * candidate.best_in:.0f} %"
        cells += [_number(candidate.loss, 5), best]
    return cells


def _number(estimate: Estimate, digits: int = 3) -> str:
    if estimate.low == estimate.high:
        return f"{estimate.value:.{digits}g}"
    return f"{estimate.value:.{digits}g} ({estimate.low:.{digits}g} to {estimate.high:.{digits}g})"
