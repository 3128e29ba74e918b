"""What may be spent, as a user writes it: "1e21", "64 H100-hours", "5000 tpu-v4-core-hours"."""

import dataclasses
import math
import re

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import DEVICES
from nfnet_eqx.scaling._anchors import GPU_UTILISATION, TPU_UTILISATION

_HOURS = {"hour": 1, "hours": 1, "day": 24, "days": 24}
_KNOWN = f"a budget is FLOPs (1e21), or hours or days of a device (64 H100-hours): {', '.join(DEVICES)}"
_NUMBER = re.compile(r"[-+]?(?:inf(?:inity)?|nan|[\d.,]+(?:e[-+]?\d+)?)?")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?![\d,])")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Training compute, and the device that it is spent on.

    Attributes:
        text: as it was given.
        flops: of training.
        device: a key of `DEVICES`.
        utilisation: the share of the device's peak that training reaches.
        utilisation_given: whether the user has stated it.
        hours: of one device.
    """

    text: str
    flops: float
    device: str
    utilisation: float
    utilisation_given: bool
    hours: float

    def hours_of(self, flops: float) -> float:
        """The hours that one device works on so many FLOPs, at this utilisation."""
        return self.hours * flops / self.flops


def parse_budget(text: str, *, device: str | None = None, utilisation: float | None = None) -> Budget:
    """Read a budget.

    >>> parse_budget("2 H100-days", utilisation=0.25).flops
    4.274208e+19
    >>> round(parse_budget("1e21", device="tpu-v4-core").hours)
    5691

    Args:
        text: a number of FLOPs, or a number of hours or days of one of `DEVICES`; upper and lower case, blanks, `-` and
            `_` are the same.
        device: what FLOPs are spent on, a key of `DEVICES`; by default an H100. Hours name theirs.
        utilisation: the share of the device's peak that training reaches; by default that of an NFNet, which differs
            between TPUs and GPUs (`TPU_UTILISATION`, `GPU_UTILISATION`).

    Raises:
        InputError: naming all that is wrong, with the units that there are.
    """
    number, unit = _split(text)
    named, hours_per_unit, known = _unit(unit)
    faults = []
    if not 0 < number < math.inf:
        faults.append("its number is not positive and finite")
    if not known:
        faults.append(f"unknown unit {unit!r}")
    faults = [f"budget {text!r}: {', and '.join(faults)}; {_KNOWN}"] if faults else []
    asked = None if device is None else _device(device)
    if device is not None and asked is None:
        faults.append(f"device {device!r}: there are {', '.join(DEVICES)}")
    if named and asked and named != asked:
        faults.append(f"device {device!r}: the budget {text!r} is of {DEVICES[named].name}s; leave one of them away")
    if utilisation is not None and not 0 < utilisation <= 1:
        faults.append(f"utilisation (={utilisation}) must be above 0 and at most 1; large runs reach 0.2 to 0.5")
    if faults:
        raise InputError("; ".join(faults))
    key = named or asked or "h100"
    share = default_utilisation(key) if utilisation is None else utilisation
    rate = 3600 * DEVICES[key].peak_flops * share
    hours = number * hours_per_unit if named else number / rate
    flops = number * hours_per_unit * rate if named else number
    if not 0 < flops < math.inf or not 0 < hours < math.inf:
        raise InputError(f"budget {text!r}: is beyond all bounds; {_KNOWN}")
    return Budget(
        text=text.strip(),
        flops=flops,
        device=key,
        utilisation=share,
        utilisation_given=utilisation is not None,
        hours=hours,
    )


def default_utilisation(device: str) -> float:
    """The utilisation of an NFNet that is assumed where none is stated."""
    return TPU_UTILISATION if device.startswith("tpu") else GPU_UTILISATION


def _split(text: str) -> tuple[float, str]:
    """The number at the start, and the unit behind it in lower case with `-` between its words."""
    lower = text.strip().lower()
    match = _NUMBER.match(lower)
    digits = match[0] if match else ""
    unit = re.sub(r"[\s_-]+", "-", lower[len(digits) :]).strip("-")
    try:
        return float(digits.replace(",", "") if _THOUSANDS.match(digits) else digits), unit
    except ValueError:
        return math.nan, unit


def _unit(unit: str) -> tuple[str | None, int, bool]:
    """Of a unit: its device, its hours, and whether it is one."""
    if unit in ("", "flop", "flops"):
        return None, 0, True
    name, _, time = unit.rpartition("-")
    device = _device(name)
    return device, _HOURS.get(time, 0), device is not None and time in _HOURS


def _device(name: str) -> str | None:
    """The key of a device by the name that a user gives it: "H100", "TPU v4 core", "rtx 4090"."""
    plain = re.sub(r"[\s_-]", "", name.lower())
    return next((key for key in DEVICES if key.replace("-", "") == plain), None)
