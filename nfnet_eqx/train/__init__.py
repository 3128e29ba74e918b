"""Training and evaluation: one loop, from a CPU to many hosts, exact on resume."""

from nfnet_eqx.train._config import OptimizerConfig, TrainConfig
from nfnet_eqx.train._distributed import init_distributed
from nfnet_eqx.train._evaluate import Evaluation, evaluate
from nfnet_eqx.train._loop import Result, train
from nfnet_eqx.train._metrics import Writer, read_metrics
from nfnet_eqx.train._plot import plot_confusion, plot_curves

__all__ = [
    "Evaluation",
    "OptimizerConfig",
    "Result",
    "TrainConfig",
    "Writer",
    "evaluate",
    "init_distributed",
    "plot_confusion",
    "plot_curves",
    "read_metrics",
    "train",
]
