"""Accelerators and their peak rates: from FLOPs to the hours that they take."""

import dataclasses
import math

from nfnet_eqx._errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator, as its maker describes it.

    Attributes:
        name: how it is written.
        peak_flops: operations a second of dense bfloat16 matrix products; no network reaches it.
        source: who says so, and where.
    """

    name: str
    peak_flops: float
    source: str


# Of TPUs a core is the unit: the papers state core hours, and both generations have two cores a chip.
DEVICES = {
    "tpu-v3-core": Device(
        name="TPU-v3 core",
        peak_flops=61.5e12,
        source="Google Cloud, TPU v3: 123 TFLOP/s bf16 a chip of two cores",
    ),
    "tpu-v4-core": Device(
        name="TPU-v4 core",
        peak_flops=137.5e12,
        source="Google Cloud, TPU v4: 275 TFLOP/s bf16 a chip of two cores",
    ),
    "a100": Device(
        name="A100",
        peak_flops=312e12,
        source="NVIDIA, A100 data sheet: bf16 tensor core, dense",
    ),
    "h100": Device(
        name="H100",
        peak_flops=989.4e12,
        source="NVIDIA, H100 Tensor Core GPU architecture paper: SXM5, bf16 tensor core, dense",
    ),
    "rtx-4090": Device(
        name="RTX 4090",
        peak_flops=165.2e12,
        source="NVIDIA, Ada GPU architecture paper: bf16 tensor core with float32 sums, dense",
    ),
}


def device_hours(flops: float, device: Device, utilisation: float) -> float:
    """The hours that one device works on so many operations.

    NFNet-F7+ saw JFT-4B eight times, and its run kept TPU-v4 cores busy at 36 % of their peak (110,000 core hours in
    2310.16764):

    >>> from nfnet_eqx import flops, get_config
    >>> training = 8 * 4e9 * flops(get_config("dm_nfnet_f7_plus"), 224)
    >>> round(device_hours(training, DEVICES["tpu-v4-core"], utilisation=0.36), -3)
    109000.0

    Args:
        flops: operations, all devices together.
        device: what they run on.
        utilisation: the share of `device.peak_flops` that is reached, stated or measured (`measured_utilisation`).

    Raises:
        InputError: the operations are no positive number, or the utilisation is no share.
    """
    _check_positive("flops", flops)
    if not 0 < utilisation <= 1:
        raise InputError(f"utilisation (={utilisation}) must be above 0 and at most 1; large runs reach 0.3 to 0.5")
    return flops / (device.peak_flops * utilisation) / 3600


def measured_utilisation(flops: float, device: Device, seconds: float) -> float:
    """The share of a device's peak that a measured run has reached.

    Args:
        flops: operations of the run.
        device: what it ran on.
        seconds: how long, times the number of devices.

    Raises:
        InputError: the operations or the seconds are no positive number.
    """
    _check_positive("flops", flops)
    _check_positive("seconds", seconds)
    return flops / (device.peak_flops * seconds)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name} (={value}) must be a positive number")
