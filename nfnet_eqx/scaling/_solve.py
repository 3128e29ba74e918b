"""From points to a law: the terms of each form, the starts, the bootstrap."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from nfnet_eqx.scaling._envelope import on_envelope
from nfnet_eqx.scaling._fit import LAWS, Form
from nfnet_eqx.scaling._laws import Law
from nfnet_eqx.scaling._minimize import Minima, minimize
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._select import Settings

# Of each form's terms beside E: the scale's name, and of each factor its name, its sign and what it is a power of.
_TERMS: dict[Form, tuple[tuple[str, tuple[tuple[str, int, str], ...]], ...]] = {
    "power": (("a", (("b", -1, "flops"),)),),
    "parametric": (("A", (("alpha", -1, "parameters"),)), ("B", (("beta", -1, "images"),))),
    "repeated": (
        ("A", (("alpha", -1, "parameters"),)),
        ("B", (("beta", -1, "images"),)),
        ("G", (("gamma", 1, "parameters"), ("delta", -1, "unique_images"))),
    ),
}
# Exponents at the starts: those of published laws lie between them.
_GRID = {"power": tuple(np.geomspace(0.02, 1.5, 16)), "parametric": (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)}
_GRID_OF_FOUR = (0.15, 0.4, 0.8)
# So many of the starts, the best by their own squares, are followed to the end.
_FOLLOWED = 32
# A start that ends this close to the best value (of the order of the noise over delta) has reached it.
_SAME = 1e-9
# Resamples that are minimized at once: enough for matrix products, few enough for a cache.
_AT_ONCE = 256


def needs(form: Form) -> tuple[str, ...]:
    """What a point must state for a form."""
    return tuple(dict.fromkeys(axis for _, powers in _TERMS[form] for _, _, axis in powers))


def size(form: Form, fixed_E: float | None) -> int:
    """How many numbers are fitted."""
    return sum(1 + len(powers) for _, powers in _TERMS[form]) + (fixed_E is None)


# Of the smallest loss: so small an E is none.
_NO_LOSS = 1e-6


class Problem(NamedTuple):
    """One form over the cells of some runs.

    Attributes:
        form: of the law.
        delta: of Huber's loss.
        fixed_E: the constant that is not fitted, if so.
        settings: the runs.
        terms: `G` of `_minimize`.
        centres: means of the axes' logarithms.
    """

    form: Form
    delta: float
    fixed_E: float | None
    settings: Settings
    terms: Float[np.ndarray, "terms cells parameters"]
    centres: dict[str, float]

    def data(
        self, counts: Float[np.ndarray, "batch runs"]
    ) -> tuple[Float[np.ndarray, "batch cells"], Float[np.ndarray, "batch cells"]]:
        """Losses and weights of the cells where each run counts so often."""
        loss, weight, _ = self.settings.choose(counts)
        return loss, weight * on_envelope(loss) if self.form == "power" else weight

    def laws(self, theta: Float[np.ndarray, "batch parameters"]) -> list[Law]:
        """The laws of some parameters."""
        names = names_of(self.form, self.fixed_E)
        columns = dict(zip(names, theta.T, strict=True))
        numbers = {"E": np.exp(columns["E"]) if "E" in columns else np.full(len(theta), self.fixed_E)}
        # Where no E is wanted, its logarithm falls until nothing changes any more: that is 0, and no number of its own.
        numbers["E"] = np.where(numbers["E"] < _NO_LOSS * self.settings.losses.min(), 0.0, numbers["E"])
        for scale, powers in _TERMS[self.form]:
            log = columns[scale].copy()
            for exponent, sign, axis in powers:
                numbers[exponent] = columns[exponent]
                log -= sign * columns[exponent] * self.centres[axis]
            numbers[scale] = np.exp(np.clip(log, -700, 700))
        law = LAWS[self.form]
        return [law(**{name: float(value[i]) for name, value in numbers.items()}) for i in range(len(theta))]

    def minimize(self, counts: Float[np.ndarray, "batch runs"], theta: Float[np.ndarray, "batch parameters"]) -> Minima:
        """Minimize for each row of counts, from the start of that row."""
        parts = []
        for begin in range(0, len(counts), _AT_ONCE):
            loss, weight = self.data(counts[begin : begin + _AT_ONCE])
            used = (weight > 0).any(0)
            log = np.log(np.where(weight > 0, loss, 1.0))
            parts.append(
                minimize(
                    self.terms[:, used],
                    log[:, used],
                    weight[:, used],
                    theta[begin : begin + _AT_ONCE],
                    delta=self.delta,
                    floor=self.fixed_E or 0.0,
                )
            )
        return Minima(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def names_of(form: Form, fixed_E: float | None) -> list[str]:
    """The fitted numbers, in the order of the parameters."""
    names = ["E"] if fixed_E is None else []
    for scale, powers in _TERMS[form]:
        names += [scale, *(exponent for exponent, _, _ in powers)]
    return names


def exponents(form: Form) -> list[str]:
    """The names of a form's exponents."""
    return [exponent for _, powers in _TERMS[form] for exponent, _, _ in powers]


def problem(form: Form, settings: Settings, fixed_E: float | None, delta: float) -> Problem:
    """Set up a form over the cells of some runs."""
    names = names_of(form, fixed_E)
    logs = {axis: np.log([getattr(point, axis) for point in settings.points]) for axis in needs(form)}
    centres = {axis: float(values.mean()) for axis, values in logs.items()}
    terms = [] if fixed_E is not None else [np.zeros((len(settings.points), len(names)))]
    for term in terms:
        term[:, names.index("E")] = 1
    for scale, powers in _TERMS[form]:
        term = np.zeros((len(settings.points), len(names)))
        term[:, names.index(scale)] = 1
        for exponent, sign, axis in powers:
            term[:, names.index(exponent)] = sign * (logs[axis] - centres[axis])
        terms.append(term)
    return Problem(form, delta, fixed_E, settings, np.stack(terms), centres)


def predict(law: Law, form: Form, points: Sequence[Point]) -> Float[np.ndarray, " points"]:
    """The losses that a law gives for points."""
    loss: Callable[..., Any] = law.loss  # its arguments are the axes, in the order of the terms
    return loss(*(np.array([getattr(point, axis) for point in points], np.float64) for axis in needs(form)))


class Best(NamedTuple):
    """The best minimum of many starts."""

    theta: Float[np.ndarray, " parameters"]
    value: float
    gradient: float
    starts: int
    reached: int


def solve(problem: Problem, counts: Float[np.ndarray, " runs"]) -> Best:
    """The best law of the runs, each counted so often, from many starts."""
    starts = _starts(problem, counts)
    found = problem.minimize(np.repeat(counts[None], len(starts), 0), starts)
    best = int(found.value.argmin())
    reached = int((found.value <= found.value[best] * (1 + 1e-6) + _SAME).sum())
    return Best(found.theta[best], float(found.value[best]), float(found.gradient[best]), len(starts), reached)


def _starts(problem: Problem, counts: Float[np.ndarray, " runs"]) -> Float[np.ndarray, "starts parameters"]:
    """For exponents of a grid the E and scales of the least relative squares, none negative: variable projection.

    The projection is exact for squares of relative errors, which the objective is close to; the minimizer goes the rest
    of the way with all of the parameters free.
    """
    from scipy.optimize import nnls

    names = names_of(problem.form, problem.fixed_E)
    which = [names.index(name) for name in exponents(problem.form)]
    loss, weight = problem.data(counts[None])
    used = weight[0] > 0
    loss, root = loss[0, used], np.sqrt(weight[0, used])
    aim = root * (1 - (problem.fixed_E or 0) / loss)
    owner = _scales(problem)
    grid = _GRID.get(problem.form, _GRID_OF_FOUR)
    tried = []
    for values in itertools.product(grid, repeat=len(which)):
        theta = np.zeros(len(names))
        theta[which] = values
        columns = np.exp(problem.terms[:, used] @ theta)
        scales, misfit = nnls((root * columns / loss).T, aim)
        # The logarithm of a scale has no zero: 1 % of the loss is left to the term, which may lose it again.
        theta[owner] = np.log(np.maximum(scales, 0.01 * loss.mean() / columns.mean(1)))
        tried.append((misfit, theta))
    tried.sort(key=lambda pair: pair[0])
    return np.stack([theta for _, theta in tried[:_FOLLOWED]])


def _scales(problem: Problem) -> list[int]:
    """Where the logarithm of each term's scale is in the parameters."""
    names = names_of(problem.form, problem.fixed_E)
    return [names.index(name) for name in ("E", *(scale for scale, _ in _TERMS[problem.form])) if name in names]


def resample(runs: int, samples: int, seed: int) -> Float[np.ndarray, "samples runs"]:
    """How often each run is drawn in each sample, with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(runs, np.full(runs, 1 / runs), size=samples).astype(np.float64)
