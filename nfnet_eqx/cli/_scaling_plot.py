"""`nfnet-eqx scaling plot`: the figures of a table of results."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling import Fit, plot_finetune, plot_isoflop, plot_learning_rates, plot_loss, read_fit, read_points

Figure = Literal["loss", "learning-rate", "finetune", "isoflop"]


def plot(
    file: Annotated[Path, tyro.conf.Positional],
    *,
    save: Annotated[Path, tyro.conf.arg(metavar="PNG|SVG")],
    what: Figure = "loss",
    fit: tuple[Path, ...] = (),
    compute: str | None = None,
    loss: str | None = None,
    top1: str | None = None,
    parameters: str | None = None,
    images: str | None = None,
    model: str | None = None,
    family: str | None = None,
    learning_rate: str | None = None,
    epochs: str | None = None,
) -> None:
    """Draw a sweep's results, or any table with named columns.

    Examples:
        nfnet-eqx scaling plot runs/study/results.jsonl --fit nfnet.json vit.json --save loss.png
        nfnet-eqx scaling plot runs/study/results.jsonl --what learning-rate --save rates.svg
        nfnet-eqx scaling plot runs/study/results.jsonl --what isoflop --fit parametric.json --save isoflop.png

    Args:
        file: a .jsonl file (an object a line) or a .csv file (names in its first line).
        save: the figure; PNG or SVG, as its name ends.
        what: loss: over compute, with the envelope and its law; learning-rate: the best one over epochs; finetune:
            top-1 error over compute; isoflop: loss over parameters at equal compute.
        fit: files of `nfnet-eqx scaling fit --save`: for loss power laws, one for each family; for isoflop one of
            the form parametric or repeated.
        compute: the column of training FLOPs.
        loss: the column of the held-out loss.
        top1: the column of the top-1 accuracy, in per cent.
        parameters: the column of the numbers of parameters.
        images: the column of the images seen.
        model: the column that names the model.
        family: the column that names the family.
        learning_rate: the column of learning rates.
        epochs: the column of epochs.

    Raises:
        InputError: a file cannot be used, or lacks what the figure shows; nothing is written then.
    """
    if save.exists() and any(other.exists() and save.samefile(other) for other in (file, *fit)):
        raise InputError(f"--save {save}: is an input and would be overwritten; choose another name")
    if what in ("learning-rate", "finetune") and fit:
        raise InputError(f"--fit: the figure {what} shows no law; leave it out")
    if what == "isoflop" and len(fit) != 1:
        raise InputError("--fit: isoflop needs one fit: nfnet-eqx scaling fit FILE --form parametric --save fit.json")
    given = {
        "flops": compute,
        "loss": loss,
        "top1": top1,
        "parameters": parameters,
        "images": images,
        "model": model,
        "family": family,
        "learning_rate": learning_rate,
        "epochs": epochs,
    }
    columns = {name: column for name, column in given.items() if column is not None}
    points = read_points(file, columns, measure="top1" if what == "finetune" else "loss")
    fits: list[Fit] = [read_fit(path) for path in fit]
    try:
        if what == "loss":
            plot_loss(points, save, fits=fits)
        elif what == "learning-rate":
            plot_learning_rates(points, save)
        elif what == "finetune":
            plot_finetune(points, save)
        else:
            plot_isoflop(fits[0], save)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    print(f"written to {save}")
