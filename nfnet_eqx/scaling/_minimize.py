"""The one minimizer of the fits: Huber's loss of log residuals, for many starts or many resamples at once.

Each law is a sum of terms whose logarithms are linear in the parameters: `log term_j = G_j theta`, with `theta` the
logarithms of the scales and the exponents. So the loss, its gradient and its Hessian are a few matrix products, and a
bootstrap is one call. The exponents' columns are centred by the caller: without that, the condition number of the
five-parameter form is of the order of 1e11.

The step is Newton's, damped by the matrix of iteratively reweighted least squares. With delta far below the noise the
loss is nearly the sum of absolute residuals, where Newton's matrix alone can be singular, while the other is an upper
bound of the curvature that always leads down but slowly; together they reach a gradient of rounding's size.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

# Of the mean of psi/delta times the log residuals' derivatives, which are of the order of 1.
TOLERANCE = 1e-7
_MOST_STEPS = 200
# Where a scale's logarithm or an exponent may wander: beyond, a term is nothing or everything.
_LOW, _HIGH = -40.0, 40.0


class Minima(NamedTuple):
    """Where many minimizations ended.

    Attributes:
        theta: the parameters of each.
        value: mean Huber loss of a unit of weight, divided by delta.
        gradient: largest component of the gradient of `value`.
    """

    theta: Float[np.ndarray, "batch parameters"]
    value: Float[np.ndarray, " batch"]
    gradient: Float[np.ndarray, " batch"]

    @property
    def converged(self) -> Bool[np.ndarray, " batch"]:
        """Which of them ended where the gradient vanishes."""
        return self.gradient < TOLERANCE


class _State(NamedTuple):
    theta: Float[np.ndarray, "batch parameters"]
    residual: Float[np.ndarray, "batch points"]
    shares: Float[np.ndarray, "terms batch points"]
    value: Float[np.ndarray, " batch"]


def minimize(
    terms: Float[np.ndarray, "terms points parameters"],
    log_loss: Float[np.ndarray, "batch points"],
    weights: Float[np.ndarray, "batch points"],
    theta: Float[np.ndarray, "batch parameters"],
    *,
    delta: float,
    floor: float = 0.0,
    steps: int = _MOST_STEPS,
) -> Minima:
    """Minimize the Huber loss of `log_loss - log(floor + sum_j exp(G_j theta))` from each start.

    Args:
        terms: `G`.
        log_loss: logarithms of the measured losses, of each resample; those without weight are not looked at.
        weights: how often each point counts.
        theta: the starts.
        delta: where Huber's loss turns from squares to absolute values.
        floor: a constant that is not fitted.
        steps: at most so many.
    """
    batch, size = theta.shape
    weights = weights / weights.sum(1, keepdims=True)
    log_loss = np.where(weights > 0, log_loss, 0.0)
    # Of the terms' own curvature, which does not depend on theta.
    squares = np.einsum("jnp,jnq->jnpq", terms, terms).reshape(len(terms), -1, size * size)
    found, value, gradient = theta.copy(), np.full(batch, np.inf), np.full(batch, np.inf)
    active = np.arange(batch)
    state = _evaluate(terms, log_loss, weights, theta, delta, floor)
    damping = np.ones(batch)
    for step in range(steps + 1):
        slope, newton, upper, jacobian = _derivatives(terms, squares, state, weights[active], delta)
        # At the edge of what may be searched, a slope that leads out counts as none.
        outward = ((state.theta <= _LOW) & (slope > 0)) | ((state.theta >= _HIGH) & (slope < 0))
        size_of_slope = np.abs(np.where(outward, 0.0, slope)).max(1)
        found[active], value[active], gradient[active] = state.theta, state.value, size_of_slope
        going = (size_of_slope > 1e-3 * TOLERANCE) & (damping < 1e12)
        if step == steps or not going.any():
            break
        active, damping = active[going], damping[going]
        slope, newton, upper, jacobian = slope[going], newton[going], upper[going], jacobian[going]
        state = _State(state.theta[going], state.residual[going], state.shares[:, going], state.value[going])
        scale = np.einsum("bpp->bp", upper) + 1e-12
        matrix = newton + damping[:, None, None] * (upper + 1e-3 * scale[:, :, None] * np.eye(size))
        move = -_solve(matrix, slope)
        length = np.abs(move).max(1, keepdims=True)
        move *= np.minimum(1.0, 2.0 / np.maximum(length, 1e-300))
        tried = np.clip(state.theta + move, _LOW, _HIGH)
        trial = _evaluate(terms, log_loss[active], weights[active], tried, delta, floor)
        # Points that the law goes through hold it in a narrow, bent valley: what bends is taken out once.
        near = np.abs(state.residual)
        hold = weights[active] * ((near <= delta) / delta + damping[:, None] / np.maximum(near, delta))
        bend = trial.residual - state.residual + (jacobian @ move[:, :, None])[:, :, 0]
        back = _solve(matrix, ((hold * bend)[:, None, :] @ jacobian)[:, 0])
        bent = np.clip(tried + np.clip(back, -1.0, 1.0), _LOW, _HIGH)
        second = _evaluate(terms, log_loss[active], weights[active], bent, delta, floor)
        trial = _where(second.value < trial.value, second, trial)
        better = trial.value <= state.value
        state = _where(better, trial, state)
        damping = np.where(better, np.maximum(damping / 6, 1e-9), damping * 6)
    return Minima(found, value, gradient)


def _where(which: Bool[np.ndarray, " batch"], one: _State, other: _State) -> _State:
    return _State(
        np.where(which[:, None], one.theta, other.theta),
        np.where(which[:, None], one.residual, other.residual),
        np.where(which[None, :, None], one.shares, other.shares),
        np.where(which, one.value, other.value),
    )


def _evaluate(
    terms: Float[np.ndarray, "terms points parameters"],
    log_loss: Float[np.ndarray, "batch points"],
    weights: Float[np.ndarray, "batch points"],
    theta: Float[np.ndarray, "batch parameters"],
    delta: float,
    floor: float,
) -> _State:
    logs = np.clip(np.matmul(theta, np.swapaxes(terms, 1, 2)), -700, 700)
    largest = logs.max(0)
    if floor > 0:
        largest = np.maximum(largest, np.log(floor))
    parts = np.exp(logs - largest)
    total = parts.sum(0) + (np.exp(np.log(floor) - largest) if floor > 0 else 0.0)
    residual = log_loss - largest - np.log(total)
    away = np.abs(residual)
    huber = np.where(away <= delta, residual**2 / (2 * delta), away - delta / 2)
    return _State(theta, residual, parts / total, (weights * huber).sum(1))


def _derivatives(
    terms: Float[np.ndarray, "terms points parameters"],
    squares: Float[np.ndarray, "terms points squares"],
    state: _State,
    weights: Float[np.ndarray, "batch points"],
    delta: float,
) -> tuple[
    Float[np.ndarray, "batch parameters"],
    Float[np.ndarray, "batch parameters parameters"],
    Float[np.ndarray, "batch parameters parameters"],
    Float[np.ndarray, "batch points parameters"],
]:
    """Gradient and Hessian of the loss, the matrix of the reweighted least squares, and `d log(sum) / d theta`."""
    batch, size = state.theta.shape
    inside = np.abs(state.residual) <= delta
    force = np.clip(state.residual / delta, -1, 1)
    jacobian = np.zeros((*state.residual.shape, size))
    for share, term in zip(state.shares, terms, strict=True):
        jacobian += share[:, :, None] * term
    slope = -((weights * force)[:, None, :] @ jacobian)[:, 0]
    turned = np.swapaxes(jacobian, 1, 2)
    # d2 log(sum) = sum_j share_j G_j G_j' - J J'
    bent = np.zeros((batch, size * size))
    for share, square in zip(state.shares, squares, strict=True):
        bent += (weights * force * share) @ square
    curve = weights * (inside / delta + force)
    newton = turned @ (curve[:, :, None] * jacobian) - bent.reshape(batch, size, size)
    pull = weights / np.maximum(np.abs(state.residual), delta)
    return slope, newton, turned @ (pull[:, :, None] * jacobian), jacobian


def _solve(
    matrix: Float[np.ndarray, "batch parameters parameters"], right: Float[np.ndarray, "batch parameters"]
) -> Float[np.ndarray, "batch parameters"]:
    try:
        return np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        return np.stack([np.linalg.lstsq(m, r, rcond=None)[0] for m, r in zip(matrix, right, strict=True)])
