"""`TrainConfig`: everything that decides a training run. A recipe is a function that returns one."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from nfnet_eqx._fields import COUNT, NOT_NEGATIVE, POSITIVE, RATE, Bounds, check_fields
from nfnet_eqx.checkpoints import ClassOrder
from nfnet_eqx.data import Augment
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import NetworkConfig
from nfnet_eqx.train._optimizer import OptimizerConfig

Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training run.

    Attributes:
        model: what to start from. A checkpoint: a bundled one, a folder (a run's too), a Hub id. Or random parameters:
            an architecture by its name (`nfnet-eqx list`) or by its configuration, whatever `num_classes` that has.
        data: the pictures, as `nfnet_eqx.data.open_source` finds them.
        out: folder of the run. A run of the same settings that it holds is resumed.
        eval_data: pictures to evaluate on, if not the validation part of `data`.
        keep_head: of a checkpoint keep the classifier as well: the data's classes are its own. Otherwise the classifier
            starts afresh.
        class_order: how the data's classes are found among those of a classifier that is kept: by name; or as the data
            numbers them (`"index"`), or in the order that timm gives to class folders (`"natural"`).
        num_classes: classes of the classifier; `None`: those of the data.
        image_size: side of a training image, in pixels; `None`: the model's own.
        eval_size: side of an image in evaluation; `None`: the model's own.
        preprocess: how a picture is prepared in evaluation, sizes apart, and normalized always; `None`: as the
            checkpoint says, or for an architecture as its `numerics` was published.
        epochs: passes over the data, whole or not; in each, a picture comes `augment.repeats` times.
        batch_size: images in a step, over all devices. Where the data has fewer, the largest power of two that it has.
        micro_batches: parts in which each device goes through its share of the batch, to save memory (not on a CPU).
        loss: what is minimized: softmax cross-entropy; or sigmoid cross-entropy, of each class on its own, summed. The
            loss of an evaluation is softmax cross-entropy whichever it is, but logits that were fitted to the sigmoid
            make an overconfident softmax: compare losses of runs that minimized the same.
        label_smoothing: probability mass spread over all classes; with either loss the targets are the same.
        head_bias: where the biases of a fresh classifier start. With the sigmoid loss and 0, every class is as likely
            as not at first; minus the logarithm of their number makes all of them together count for one.
        drop_rate: dropout before the classifier; `None`: as the model says.
        stochastic_depth: drop rate of the last residual branches; `None`: as the model says.
        augment: random changes of the training pictures.
        optimizer: the optimizer.
        precision: of activations and gradients. Parameters, weight standardization, logits and loss are float32 always.
        remat: compute each block's activations again in the backward pass, to save memory (a CPU's XLA saves none so).
        fsdp: between the steps, shard parameters and optimizer state over the devices instead of replicating them;
            within a step, every device has parameters and gradients whole.
        seed: decides everything random.
        eval_every_epochs: epochs between evaluations, before each of which a state is saved; the last step has one.
        checkpoint_every_steps: steps between further saved states; 0: none.
        keep: how many of the last saved states stay, besides the best.
        export: the state whose network becomes the run's checkpoint: the best by top-1 on the evaluation images (which
            then chose it), or the last; `None`: the last is evaluated, and there is no checkpoint.
        log_every_steps: steps between lines of metrics; `None`: 50, or fewer where a run would have less than 20 lines.
        on_broken: skip pictures that cannot be read and count them, or stop.
        num_threads: threads that decode pictures, in each process.
        num_workers: processes to decode them instead, for hosts with many cores.
        tensorboard: write TensorBoard's files too.

    Raises:
        InputError: naming every value that is impossible, and why.
    """

    # A field that comes new defaults to what was done before it: so is a run resumed that was begun then (`_run.py`).
    model: str | NetworkConfig
    data: Path
    out: Path
    eval_data: Path | None = None
    keep_head: bool = False
    class_order: ClassOrder = "name"
    num_classes: int | None = None
    image_size: int | None = 224
    eval_size: int | None = 256
    preprocess: Preprocess | None = None
    epochs: float = 90.0
    batch_size: int = 4096
    micro_batches: int = 1
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = 0.1
    head_bias: float = 0.0
    drop_rate: float | None = None
    stochastic_depth: float | None = None
    augment: Augment = dataclasses.field(default_factory=Augment)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    precision: Precision = "bfloat16"
    remat: bool = False
    fsdp: bool = False
    seed: int = 0
    eval_every_epochs: float = 1.0
    checkpoint_every_steps: int = 0
    keep: int = 2
    export: Literal["best", "last"] | None = "best"
    log_every_steps: int | None = None
    on_broken: Literal["skip", "stop"] = "skip"
    num_threads: int = 16
    num_workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS, _faults_together)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return _plain(dataclasses.asdict(self))


_BOUNDS = {
    "num_classes": COUNT,
    "image_size": COUNT,
    "eval_size": COUNT,
    "epochs": POSITIVE,
    "batch_size": COUNT,
    "micro_batches": COUNT,
    "label_smoothing": RATE,
    "drop_rate": RATE,
    "stochastic_depth": RATE,
    "seed": Bounds(0, 2**31 - 1),
    "eval_every_epochs": POSITIVE,
    "checkpoint_every_steps": NOT_NEGATIVE,
    "keep": COUNT,
    "log_every_steps": COUNT,
    "num_threads": COUNT,
    "num_workers": NOT_NEGATIVE,
}


def batch_unit(config: TrainConfig, devices: int) -> tuple[int, list[str]]:
    """What a batch must be a multiple of, and for which reasons."""
    mixed = config.augment.mixup > 0 or config.augment.cutmix
    sam = config.optimizer.sam_rho > 0 and config.optimizer.sam_fraction < 1
    repeats, sam_fraction = config.augment.repeats, config.optimizer.sam_fraction
    parts = {
        f"{devices} devices": devices,
        f"micro_batches (={config.micro_batches})": config.micro_batches,
        "pairs of pictures": 2 if mixed or sam else 1,
        f"optimizer.sam_fraction (={sam_fraction})": round(1 / sam_fraction) if sam else 1,
    }
    why = [part for part, size in parts.items() if size > 1]
    why += [f"augment.repeats (={repeats}) in pairs"] if repeats > 1 else []
    return math.lcm(math.prod(parts.values()), 2 * repeats if repeats > 1 else 1), why


def _faults_together(config: TrainConfig) -> list[str]:
    if config.head_bias and config.keep_head:
        return [f"head_bias (={config.head_bias}) is for a fresh classifier, keep_head keeps the old one; set it to 0"]
    return []


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
