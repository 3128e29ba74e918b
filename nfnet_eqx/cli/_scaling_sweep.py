"""`nfnet-eqx scaling sweep`: train the runs of a TOML file, or say what they would cost."""

import json as json_format
import logging
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import tyro

from nfnet_eqx.cli._process import keep_compiled, sigterm
from nfnet_eqx.cli._text import pad, width
from nfnet_eqx.cli.train import progress_shown
from nfnet_eqx.scaling import COMPILED_NAME, SweepLeft, SweepPlan, SweepResult, plan_sweep, read_sweep, sweep_left
from nfnet_eqx.scaling import sweep as run_sweep


def sweep(
    file: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path | None = None,
    plan: bool = False,
    json: bool = False,
) -> None:
    """Train models x epoch budgets x learning rates, and write all results into OUT/results.jsonl.

    Stopped in whatever way, the same command resumes it. Started several times on one folder, on several machines too,
    the workers share the runs. Ctrl-C and SIGTERM save first. A file of models and budgets:

        data = "data/cifar10"          # relative to the working directory
        recipe = "cifar10"             # what `nfnet-eqx train` calls so; what follows changes it
        epochs = [0.25, 1, 4]          # each is a run of its own, with its whole schedule
        learning_rates = [0.2, 0.4, 0.8]
        seeds = [0]                    # the default
        keep_checkpoints = false       # the default: results and metrics stay

        [train]                        # any field of `nfnet-eqx train`; "none" is None
        batch_size = 128
        optimizer.weight_decay = 5e-5

        [[models]]
        name = "f0"                    # in the results
        model = "dm_nfnet_f0"          # or a table [models.network] of an architecture's fields
        family = "NFNet"               # what `nfnet-eqx scaling compare` tells apart; by default the network's own
        learning_rates = [0.1, 0.2]    # this and `recipe` and [models.train]: for this model alone; or by epochs:
                                       # { "0.25" = [0.4, 0.8], "1" = [0.2, 0.4], "4" = [0.1, 0.2] }

    Examples:
        nfnet-eqx scaling sweep study.toml --plan
        nfnet-eqx scaling sweep study.toml --out runs/study

    Args:
        file: the TOML file.
        out: the folder of the sweep; by default runs/ and the file's name.
        plan: print the runs and what they cost, and train nothing. Where OUT has results, also how long the rest takes.
        json: print JSON instead of words.

    Raises:
        InputError: the file, the data, a model or the folder cannot be used; everything that is wrong with the file is
            named at once.
    """
    config, out = read_sweep(file), out or Path("runs") / file.stem
    if plan:
        planned = plan_sweep(config)
        left = sweep_left(planned, out)
        lines = _plan_lines(planned, left)
        print(json_format.dumps(_plan_as_json(planned, left), indent=2) if json else "\n".join(lines))
        return
    keep_compiled(out / COMPILED_NAME)
    with progress_shown(others=logging.WARNING), sigterm(interrupt=True) as stop:
        result = run_sweep(config, out, stop=stop)
    print(json_format.dumps(_as_json(result), indent=2) if json else "\n".join(_lines(result)))


def _plan_lines(plan: SweepPlan, left: SweepLeft) -> list[str]:
    rows = [("model", "family", "parameters", "FLOPs/image", "runs", "FLOPs", "share")]
    for model in _models(plan):
        rows.append(
            (
                model["model"],
                model["family"],
                f"{model['parameters']:,}",
                f"{model['flops_per_image']:.3g}",
                f"{model['runs']}",
                f"{model['flops']:.3g}",
                f"{100 * model['flops'] / plan.flops:.1f} %",
            )
        )
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(pad(cell, w) if n < 2 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines += ["", f"{len(plan.runs)} runs, {plan.flops:.3g} training FLOPs"]
    if left.seconds is not None:
        hours = f"{left.seconds / 3600:.2g} hours of training by one worker, at the speed of those that have ended"
        lines.append(f"left: {left.runs} runs, {left.flops:.3g} FLOPs, {hours}")
    return lines


def _models(plan: SweepPlan) -> list[dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for run in plan.runs:
        row = models.setdefault(
            run.model.name,
            {
                "model": run.model.name,
                "family": run.family,
                "parameters": run.parameters,
                "flops_per_image": run.flops_per_step / run.config.batch_size,
                "runs": 0,
                "flops": 0,
            },
        )
        row["runs"] += 1
        row["flops"] += run.flops
    return list(models.values())


def _plan_as_json(plan: SweepPlan, left: SweepLeft) -> dict[str, Any]:
    runs = [
        {
            "run": run.id,
            "model": run.model.name,
            "epochs": run.config.epochs,
            "learning_rate": run.config.optimizer.learning_rate,
            "seed": run.config.seed,
            "steps": run.steps,
            "images": run.images,
            "flops": run.flops,
        }
        for run in plan.runs
    ]
    return {"flops": plan.flops, "left": left._asdict(), "models": _models(plan), "runs": runs}


def _ended(result: SweepResult) -> Counter[str]:
    return Counter(point.status for point in result.points if point.final)


def _lines(result: SweepResult) -> list[str]:
    counts = _ended(result)
    lines = [f"{run}: {reason}" for run, reason in result.reasons.items()]
    lines.append(f"{result.file}: " + ", ".join(f"{counts[status]} {status}" for status in sorted(counts)))
    if result.left:
        lines.append(f"stopped: {result.left} of {result.runs} runs are left; the same command resumes them")
    return lines


def _as_json(result: SweepResult) -> dict[str, Any]:
    return {
        "results": str(result.file),
        "runs": result.runs,
        "left": result.left,
        **_ended(result),
        "reasons": dict(result.reasons),
    }
