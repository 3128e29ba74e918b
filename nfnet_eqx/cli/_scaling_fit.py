"""`nfnet-eqx scaling fit`: a scaling law of a table of results, with intervals and what they cannot carry."""

import json as json_format
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import replacing, write_json
from nfnet_eqx.cli._text import printable
from nfnet_eqx.scaling import (
    Data,
    fit_parametric,
    fit_power_law,
    fit_repeated,
    fit_report,
    infer_images,
    read_points,
    report_json,
)

_FITS = {"power": fit_power_law, "parametric": fit_parametric, "repeated": fit_repeated}


def fit(
    file: Annotated[Path, tyro.conf.Positional],
    *,
    form: Literal["power", "parametric", "repeated"] = "power",
    family: str | None = None,
    fix_e: float | None = None,
    delta: float = 1e-3,
    samples: int = 1000,
    seed: int = 0,
    flops_per_parameter: float | None = None,
    compute: str | None = None,
    loss: str | None = None,
    parameters: str | None = None,
    images: str | None = None,
    unique_images: str | None = None,
    run: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    learning_rate: str | None = None,
    json: bool = False,
    save: Annotated[Path | None, tyro.conf.arg(metavar="JSON")] = None,
) -> None:
    """Fit a scaling law to a sweep's results, or to any table with named columns, and say what it cannot carry.

    Examples:
        nfnet-eqx scaling fit runs/study/results.jsonl --family NFNet --save fit.json
        nfnet-eqx scaling fit table.csv --form parametric --compute training_flop --flops-per-parameter 6

    Args:
        file: a .jsonl file (an object a line) or a .csv file (names in its first line).
        form: power: E + a C^-b of the lower envelope; parametric: E + A N^-alpha + B D^-beta; repeated: with a term of
            images that are seen again.
        family: fit only the rows whose `family` is this.
        fix_e: fix E to this; 0 is a straight line in log-log.
        delta: where the Huber loss of log residuals turns linear.
        samples: of the bootstrap over runs.
        seed: of the bootstrap.
        flops_per_parameter: infer images that the file lacks from C = k N D (or C from the others); 6 is usual.
        compute: the column of training FLOPs.
        loss: the column of the held-out loss.
        parameters: the column of the numbers of parameters.
        images: the column of the images (or tokens) seen.
        unique_images: the column of the different images among them.
        run: the column that names the run; rows of one run are resampled together.
        model: the column that names the model.
        dataset: the column that names the data.
        learning_rate: the column of learning rates; of each model and budget the best one is fitted.
        json: print JSON, unrounded, instead of words; all but the bootstrap's samples.
        save: also write the JSON, samples and all, to this file.

    Raises:
        InputError: the file, or what it holds, cannot be fitted; nothing is printed or written then.
    """
    if save is not None and (save.is_dir() or not save.absolute().parent.is_dir()):
        raise InputError(f"--save {save}: is a folder, or its folder does not exist; name a file in an existing folder")
    if save is not None and save.exists() and file.exists() and save.samefile(file):
        raise InputError(f"--save {save}: is the table itself and would be overwritten; choose another name")
    given = {
        "flops": compute,
        "loss": loss,
        "parameters": parameters,
        "images": images,
        "unique_images": unique_images,
        "run": run,
        "model": model,
        "dataset": dataset,
        "learning_rate": learning_rate,
    }
    points = read_points(file, {name: column for name, column in given.items() if column is not None})
    if flops_per_parameter is not None:
        points = infer_images(points, flops_per_parameter)
    try:
        found = _FITS[form](points, family=family, fixed_E=fix_e, delta=delta, samples=samples, seed=seed)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    data = Data.of(file, flops_per_parameter)
    report = report_json(found, data)
    if save is not None:
        with replacing(save) as unfinished:
            write_json(unfinished, report)
    if json:
        del report["samples"]
        print(json_format.dumps(report, indent=2, allow_nan=False))
    else:
        print("\n".join(map(printable, fit_report(found, data).split("\n"))))
