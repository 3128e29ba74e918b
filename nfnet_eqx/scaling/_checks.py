"""What a fit refuses, and what it says that the data cannot carry."""

from collections.abc import Sequence

import numpy as np

from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling._envelope import on_envelope
from nfnet_eqx.scaling._fit import Fit, Form
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._select import Settings, compute
from nfnet_eqx.scaling._solve import exponents, needs, predict, size

# With fewer sizes or budgets the curvature that parts E from the power laws rests on a single point.
_FEW = 5
# More than any study spans: a slip of units.
_MOST_DECADES = 12
_COLUMN = {"parameters": "--parameters", "flops": "--compute", "unique_images": "--unique-images"}
_IMAGES = "--images, or --flops-per-parameter 6 to infer them from C = 6 N D"


def check_settings(fixed_E: float | None, delta: float, samples: int, smallest: float) -> list[str]:
    """What is wrong with the arguments of a fit."""
    faults = []
    if not 0 < delta < np.inf:
        faults.append(f"delta (={delta}) must be positive; the usual value is 0.001")
    if samples < 100:
        faults.append(f"samples (={samples}) must be 100 or more, or an interval says nothing")
    if fixed_E is not None and not 0 <= fixed_E < smallest:
        faults.append(f"fixed_E (={fixed_E}) must be 0 or more and below the smallest loss, which is {smallest:.6g}")
    return faults


def check_fields(form: Form, points: Sequence[Point]) -> list[str]:
    """What the points lack."""
    faults = []
    for axis in needs(form):
        lacking = sum(getattr(point, axis) is None for point in points)
        if lacking:
            faults.append(
                f"{lacking} of {len(points)} points have no {axis}, which the {form} form needs: "
                f"name the column with {_COLUMN.get(axis, _IMAGES)}"
            )
    return faults


def check_data(form: Form, settings: Settings, fixed_E: float | None) -> list[str]:
    """Why the form cannot be told from these points, each with the reason."""
    points = settings.points
    losses = np.array([point.loss for point in points], np.float64)
    if len(points) > 1 and np.ptp(losses) <= 1e-9 * losses.max():
        return [f"all {len(points)} losses are {losses[0]:.6g}; there is nothing to fit"]
    fitted = int(on_envelope(losses[None])[0].sum()) if form == "power" else len(points)
    fewest = size(form, fixed_E) + 1
    faults = []
    if fitted < fewest:
        where = f"on the lower envelope ({len(points)} in all)" if form == "power" else "left"
        why = ""
        if form == "power" and len(points) >= fewest and np.corrcoef(np.log(compute(points)), losses)[0, 1] > 0:
            why = ", since the loss grows with compute; look at the learning rates and the columns"
        faults.append(
            f"{fitted} different points are {where}, and {fewest} are the fewest for the {fewest - 1} numbers of the "
            f"{form} form{why}"
        )
    if form == "power":
        return faults
    logs = {axis: np.log([getattr(point, axis) for point in points]) for axis in needs(form)}
    for axis, what, least in (("parameters", "model size", 3), ("images", "number of images", 3)):
        found = len(np.unique(logs[axis].round(9)))
        if found < least:
            faults.append(f"{found} {what}{'s' * (found > 1)}: to tell the exponent of {axis} takes {least} or more")
    if form == "repeated":
        if len(np.unique(logs["unique_images"].round(9))) < 2:
            faults.append("unique_images is the same everywhere: its exponent takes 2 or more sizes of the data set")
        if np.allclose(logs["images"], logs["unique_images"]):
            faults.append("no image is seen twice, so nothing tells of repetition; use the parametric form")
    if not faults and abs(np.corrcoef(logs["parameters"], logs["images"])[0, 1]) > 0.999:
        faults.append(
            "parameters and images grow in step (correlation of their logarithms above 0.999), so their terms cannot "
            "be told apart; vary one at a time, or use the power form"
        )
    return faults


def raise_all(faults: list[str]) -> None:
    """Refuse, if there is reason to."""
    if faults:
        raise InputError("; ".join(faults))


def notes(fit: Fit, settings: Settings) -> tuple[str, ...]:
    """What the data cannot carry, in words."""
    return tuple(
        [
            *_of_design(fit, settings),
            *_of_rows(fit),
            *_of_intervals(fit),
            *_of_optimizer(fit),
            *_of_extrapolation(fit),
        ]
    )


def _of_design(fit: Fit, settings: Settings) -> list[str]:
    found, rows = [], fit.rows
    if rows.models and rows.models < _FEW:
        found.append(f"too few models: {rows.models} sizes, where {_FEW} or more show a curve")
    if rows.budgets < _FEW:
        found.append(f"too few budgets: {rows.budgets}, where {_FEW} or more show a curve")
    for axis, (low, high) in rows.ranges.items():
        if np.log10(high) - np.log10(low) > _MOST_DECADES:
            found.append(
                f"{axis} spans {np.log10(high) - np.log10(low):.0f} decades ({low:.3g} to {high:.3g}): "
                "are all rows in one unit?"
            )
    if all(point.parameters is not None for point in settings.points) and rows.models > 1:
        found += _no_optimum(settings.points)
    again = [p.images / p.unique_images for p in settings.points if p.images and p.unique_images]
    if fit.form == "parametric" and again and max(again) > 1.01:
        found.append(
            f"images are seen up to {max(again):.3g} times, and this form is for fresh data: within the range only; "
            "the repeated form knows of it"
        )
    return found


def _no_optimum(points: Sequence[Point]) -> list[str]:
    """Whether some size between the smallest and the largest is the best at its compute (within a factor of 2)."""
    bins: dict[int, list[Point]] = {}
    for point, log in zip(points, np.log2(compute(points)), strict=True):
        bins.setdefault(int(np.floor(log + 1e-9)), []).append(point)
    places = []
    for inside in bins.values():
        sizes = sorted({point.parameters for point in inside if point.parameters})
        if len(sizes) >= 3:
            best = min(inside, key=lambda point: point.loss or np.inf).parameters
            places.append("smallest" if best == sizes[0] else "largest" if best == sizes[-1] else "")
    if not places:
        return ["no compute (within a factor of 2) has three sizes: where the best size lies is not measured"]
    if any(place == "" for place in places):
        return []
    if len(set(places)) == 1:
        return [f"no interior optimum: the {places[0]} model is the best at every compute; train {_OTHER[places[0]]}"]
    return ["no interior optimum: at every compute the smallest or the largest model is the best; train more sizes"]


_OTHER = {"smallest": "smaller ones", "largest": "larger ones"}


def _of_rows(fit: Fit) -> list[str]:
    found, rows = [], fit.rows
    if rows.at_edge:
        found.append(
            f"the best learning rate is at the edge of its grid for {rows.at_edge} of {rows.chosen} points: "
            "a better one may lie beyond"
        )
    if rows.missing:
        found.append(rows.missing)
    if rows.repeated:
        found.append(f"{rows.repeated} rows say the same as another one; each is counted once")
    if rows.diverged or rows.failed:
        found.append(f"{rows.diverged} runs diverged and {rows.failed} failed; they are not fitted")
    return found


def _of_intervals(fit: Fit) -> list[str]:
    found = []
    for name in exponents(fit.form):
        low, high = fit.interval(name)
        if low <= 0:
            what = "contains 0" if high >= 0 else "lies below 0"
            found.append(f"the interval of {name} {what} ({low:.3g} to {high:.3g}): the data do not show its term")
    smallest = fit.rows.ranges["loss"][0]
    if fit.fixed_E is None and fit.interval("E")[0] < 1e-3 * smallest:
        found.append("the interval of E reaches 0: these data do not show a loss that no compute removes")
    return found


def _of_optimizer(fit: Fit) -> list[str]:
    found, how = [], fit.convergence
    if how.reached < 2:
        found.append(f"only {how.reached} of {how.starts} starts reached the best minimum: there may be a better one")
    if how.gradient > 1e-6:
        found.append(f"the minimum is not sharp: its gradient is {how.gradient:.1e}")
    if how.bootstrap_converged < 0.95 * how.bootstrap:
        found.append(
            f"the bootstrap did not converge in {how.bootstrap - how.bootstrap_converged} of {how.bootstrap} samples, "
            "which are left out: intervals may be too narrow"
        )
    return found


def _of_extrapolation(fit: Fit) -> list[str]:
    found, held, influence = [], fit.held_out, fit.influence
    if held is None:
        found.append("too few points to hold some out: how well the law extrapolates is not known")
    else:
        measured = np.array([point.loss for point in fit.points], np.float64)
        misfit = 100 * np.median(np.abs(np.log(predict(fit.law, fit.form, fit.points) / measured)))
        if abs(held.bias_percent) > 3 * max(float(misfit), 0.01):
            found.append(
                f"the law of the smaller computes misses the largest ones by {held.bias_percent:+.2g} %, where the fit "
                f"misses a point by {misfit:.2g} %: do not extrapolate"
            )
    if influence is not None and influence.standard_errors > 2:
        number = len(influence.runs)
        value, without = getattr(fit.law, influence.name), influence.without
        subject = f"{_WORDS.get(number, str(number))} point{'s carry' if number > 1 else ' carries'}"
        found.append(
            f"{subject} {influence.name} ({influence.what}): without {'them' if number > 1 else 'it'} it is "
            f"{without:.4g}, not {value:.4g}"
        )
    return found


_WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}
