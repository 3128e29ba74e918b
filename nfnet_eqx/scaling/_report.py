"""What a fit reports: all that 2502.18969 asks for, as JSON, and the same in short words."""

import dataclasses
from pathlib import Path
from typing import Any

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import digest, read_json
from nfnet_eqx.scaling._fit import Fit, Form

FORMULAS: dict[Form, str] = {
    "power": "L = E + a C^-b",
    "parametric": "L = E + A N^-alpha + B D^-beta",
    "repeated": "L = E + A N^-alpha + B T^-beta + G N^gamma U^-delta",
}
UNITS = {
    "L": "held-out loss, nats",
    "C": "training FLOPs",
    "N": "parameters",
    "D": "images seen, each once",
    "T": "images seen, repeats counted",
    "U": "different images",
}
_MEANS = {"size_exponent": "N_opt ~ C^", "data_exponent": "D_opt ~ C^"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The table that a fit is of.

    Attributes:
        file: as it was named.
        sha256: of its bytes.
        flop_rule: where the FLOPs are from, and the images, if they were inferred.
    """

    file: str
    sha256: str
    flop_rule: str

    @classmethod
    def of(cls, path: str | Path, flops_per_parameter: float | None = None) -> "Data":
        """Describe a table.

        Args:
            path: the file.
            flops_per_parameter: what `infer_images` was given.
        """
        with Path(path).open("rb") as file:
            sha256 = digest(file)
        rule = "as the file states them"
        if flops_per_parameter is not None:
            rule += f"; what it lacks of FLOPs and images is inferred from C = {flops_per_parameter:g} N D"
        return cls(file=str(path), sha256=sha256, flop_rule=rule)


def report_json(fit: Fit, data: Data) -> dict[str, Any]:
    """Everything about a fit, unrounded; `read_fit` reads it back from a file."""
    formula = FORMULAS[fit.form]
    return {
        "formula": formula,
        "units": {symbol: unit for symbol, unit in UNITS.items() if symbol in formula.replace("E", "")},
        "objective": "mean over the runs of Huber's loss of log L_measured - log L_law, divided by delta",
        "resampling": "runs, with replacement; learning rates and envelope chosen again in each sample; percentiles",
        "data": dataclasses.asdict(data),
        **fit.to_json(),
    }


def read_fit(path: str | Path) -> Fit:
    """Read a fit that `nfnet-eqx scaling fit --save` wrote.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    try:
        return Fit.from_json(read_json(Path(path)))
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def fit_report(fit: Fit, data: Data) -> str:
    """The same in short, for a reader."""
    rows, how, held = fit.rows, fit.convergence, fit.held_out
    fixed = "" if fit.fixed_E is None else f", E fixed to {fit.fixed_E:g}"
    lines = [f"{FORMULAS[fit.form]}{fixed}", "", f"{'':16}{'value':>12}   95 % interval"]
    for name, (low, high) in fit.intervals().items():
        if name == "E" and fit.fixed_E is not None:
            continue
        lines.append(
            f"{_MEANS.get(name, name):16}{_number(getattr(fit.law, name)):>12}   {_number(low)} to {_number(high)}"
        )
    ranges = [f"{axis.replace('_', ' ')} {low:.3g} to {high:.3g}" for axis, (low, high) in rows.ranges.items()]
    on = "on the lower envelope of" if fit.form == "power" else "fitted of"
    left_out = {"before the end of a run": rows.not_final, "diverged": rows.diverged, "failed": rows.failed}
    lines += [
        "",
        f"data          {data.file} (sha256 {data.sha256[:12]}): {rows.given} rows"
        + "".join(f", {number} {what}" for what, number in left_out.items() if number)
        + f"; {rows.fitted} points {on} {rows.runs} runs",
        f"range         {'; '.join(ranges)}; beyond is extrapolation",
        f"FLOPs         {data.flop_rule}",
        f"learning rate {rows.learning_rates}",
        f"objective     Huber loss of log residuals, delta {fit.delta:g}",
        f"convergence   {how.reached} of {how.starts} starts reach the minimum, gradient {how.gradient:.0e}; "
        f"{how.bootstrap_converged} of {how.bootstrap} bootstrap samples of the runs converge (seed {fit.seed})",
    ]
    if held is not None:
        lines.append(
            f"held out      the {held.predicted} points above {held.above:.3g} FLOPs, predicted from the {held.fitted} "
            f"below: mean error {held.error:.2g} nats ({held.error_percent:.2g} %), bias {held.bias_percent:+.2g} %"
        )
    if fit.influence is not None:
        few = fit.influence
        lines.append(
            f"influence     most on {few.name}, of {len(few.runs)} of the runs ({few.what}): without, "
            f"{_number(few.without)} ({few.standard_errors:.1f} standard errors away)"
        )
    if fit.notes:
        lines += ["", "What these data cannot carry, and what to know:", *(f"- {note}" for note in fit.notes)]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.5g}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.4e}"
