"""Scaling laws: sweeps over models and budgets, fits with intervals, plots, a planner, two families compared."""

from nfnet_eqx.scaling._budget import Budget, parse_budget
from nfnet_eqx.scaling._compare import compare
from nfnet_eqx.scaling._envelope import envelope
from nfnet_eqx.scaling._equal_compute import At, Axis, EqualCompute, Estimate, Frontier
from nfnet_eqx.scaling._figure_compare import plot_compare
from nfnet_eqx.scaling._figures import plot_finetune, plot_isoflop, plot_learning_rates, plot_loss
from nfnet_eqx.scaling._fit import Convergence, Fit, Form, HeldOut, Influence, Rows
from nfnet_eqx.scaling._forecast import SweepLeft, sweep_left
from nfnet_eqx.scaling._forms import fit_parametric, fit_power_law, fit_repeated
from nfnet_eqx.scaling._grid import PlannedRun, SweepPlan, plan_sweep
from nfnet_eqx.scaling._laws import Law, Parametric, PowerLaw, Repeated
from nfnet_eqx.scaling._plan import plan
from nfnet_eqx.scaling._planned import Candidate, ComputePlan, Optimum
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._read import infer_images, read_points
from nfnet_eqx.scaling._report import Data, fit_report, read_fit, report_json
from nfnet_eqx.scaling._results import COMPILED_NAME
from nfnet_eqx.scaling._sweep import SweepResult, sweep
from nfnet_eqx.scaling._sweep_config import SweepConfig, SweepModel, read_sweep

__all__ = [
    "COMPILED_NAME",
    "At",
    "Axis",
    "Budget",
    "Candidate",
    "ComputePlan",
    "Convergence",
    "Data",
    "EqualCompute",
    "Estimate",
    "Fit",
    "Form",
    "Frontier",
    "HeldOut",
    "Influence",
    "Law",
    "Optimum",
    "Parametric",
    "PlannedRun",
    "Point",
    "PowerLaw",
    "Repeated",
    "Rows",
    "SweepConfig",
    "SweepLeft",
    "SweepModel",
    "SweepPlan",
    "SweepResult",
    "compare",
    "envelope",
    "fit_parametric",
    "fit_power_law",
    "fit_repeated",
    "fit_report",
    "infer_images",
    "parse_budget",
    "plan",
    "plan_sweep",
    "plot_compare",
    "plot_finetune",
    "plot_isoflop",
    "plot_learning_rates",
    "plot_loss",
    "read_fit",
    "read_points",
    "read_sweep",
    "report_json",
    "sweep",
    "sweep_left",
]
