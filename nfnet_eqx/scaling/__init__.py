"""Scaling laws: sweeps over models and budgets, fits with intervals, plots, a planner, two families compared."""

from nfnet_eqx.scaling._laws import Law, Parametric, PowerLaw, Repeated
from nfnet_eqx.scaling._points import Point

__all__ = [
    "Law",
    "Parametric",
    "Point",
    "PowerLaw",
    "Repeated",
]
