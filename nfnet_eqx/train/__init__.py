"""Training and evaluation: one loop, from a CPU to many hosts, exact on resume."""

from nfnet_eqx.checkpoints import RUN_NAME
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._cost import step_flops
from nfnet_eqx.train._distributed import init_distributed
from nfnet_eqx.train._evaluate import Evaluation, Measure, evaluate
from nfnet_eqx.train._evaluate_checkpoint import CheckpointEvaluation, ClassResult, evaluate_checkpoint
from nfnet_eqx.train._lock import Locked, locked
from nfnet_eqx.train._loop import Result, train
from nfnet_eqx.train._mesh import make_mesh, put_batch
from nfnet_eqx.train._metrics import Writer, read_metrics
from nfnet_eqx.train._optimizer import OptimizerConfig
from nfnet_eqx.train._plot import drawable, plot_confusion, plot_curves
from nfnet_eqx.train._prepare import count_steps, resolve_sizes
from nfnet_eqx.train._published import Comparison
from nfnet_eqx.train._run import changed_settings
from nfnet_eqx.train._start import count_classes, find_start
from nfnet_eqx.train._step import Program, make_program
from nfnet_eqx.train._watch import Diverged, Window

__all__ = [
    "RUN_NAME",
    "CheckpointEvaluation",
    "ClassResult",
    "Comparison",
    "Diverged",
    "Evaluation",
    "Locked",
    "Measure",
    "OptimizerConfig",
    "Program",
    "Result",
    "TrainConfig",
    "Window",
    "Writer",
    "changed_settings",
    "count_classes",
    "count_steps",
    "drawable",
    "evaluate",
    "evaluate_checkpoint",
    "find_start",
    "init_distributed",
    "locked",
    "make_mesh",
    "make_program",
    "plot_confusion",
    "plot_curves",
    "put_batch",
    "read_metrics",
    "resolve_sizes",
    "step_flops",
    "train",
]
