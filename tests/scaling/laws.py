"""Runs of known laws, with noise."""

import numpy as np

from nfnet_eqx.scaling import Parametric, Point, PowerLaw, Repeated

POWER = PowerLaw(E=1.0, a=200.0, b=0.15)
PARAMETRIC = Parametric(E=0.5, A=60.0, alpha=0.4, B=30.0, beta=0.35)
REPEATED = Repeated(E=0.5, A=60.0, alpha=0.4, B=30.0, beta=0.35, G=0.04, gamma=0.5, delta=0.45)


def power_runs(seed: int = 0, noise: float = 0.01, budgets: int = 10) -> list[Point]:
    """Five sizes at each budget, the middle one on the law, the others above it as far as a parabola in log N."""
    generator, points = np.random.default_rng(seed), []
    for flops in 1e15 * 2.0 ** np.arange(budgets):
        for size in (0.25, 0.5, 1, 2, 4):
            over = (POWER.loss(flops) - POWER.E) * 0.05 * np.log(size) ** 2
            loss = (POWER.loss(flops) + over) * np.exp(noise * generator.normal())
            points.append(_point(points, flops=flops, parameters=size * flops**0.5 / 100, loss=loss))
    return points


def grid_runs(
    seed: int = 0, noise: float = 0.01, sizes: int = 6, budgets: int = 6, law: Parametric = PARAMETRIC
) -> list[Point]:
    """Sizes times budgets."""
    generator, points = np.random.default_rng(seed), []
    for parameters in 1e4 * 3.0 ** np.arange(sizes):
        for images in 5e4 * 2.0 ** np.arange(budgets):
            loss = law.loss(parameters, images) * np.exp(noise * generator.normal())
            flops = 6 * parameters * images
            points.append(_point(points, parameters=parameters, images=images, flops=flops, loss=loss))
    return points


def repeated_runs(seed: int = 0, noise: float = 0.01) -> list[Point]:
    """Sizes times budgets times sizes of the data set."""
    generator, points = np.random.default_rng(seed), []
    for parameters in 1e4 * 3.0 ** np.arange(6):
        for images in 5e4 * 2.0 ** np.arange(6):
            for unique in (12_500.0, 25_000.0, 50_000.0):
                loss = REPEATED.loss(parameters, images, unique) * np.exp(noise * generator.normal())
                points.append(
                    _point(
                        points,
                        parameters=parameters,
                        images=images,
                        unique_images=unique,
                        flops=6 * parameters * images,
                        loss=loss,
                    )
                )
    return points


def _point(points: list[Point], *, loss: float, **values: float) -> Point:
    numbers = {name: float(value) for name, value in values.items()}
    return Point(run=f"run{len(points)}", dataset="synthetic", loss=float(loss), **numbers)
