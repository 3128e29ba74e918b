"""A budget as a user writes it."""

import math

import hypothesis
import hypothesis.strategies as st
import pytest

from nfnet_eqx import InputError
from nfnet_eqx.models import DEVICES
from nfnet_eqx.scaling import parse_budget


@pytest.mark.parametrize("text", ["1e21", " 1E21 ", "1e21 FLOPs", "1e+21flops", "1,000,000,000,000,000,000,000"])
def test_a_plain_number_is_flops(text: str):
    budget = parse_budget(text)
    assert budget.flops == 1e21 and budget.device == "h100"
    assert budget.hours == pytest.approx(1e21 / (3600 * 989.4e12 * 0.2))
    assert parse_budget(text, device="TPU-v4 core").device == "tpu-v4-core"


@pytest.mark.parametrize(
    ("text", "device", "hours"),
    [
        ("64 H100-hours", "h100", 64),
        ("64 h100 hours", "h100", 64),
        ("64H100-hours", "h100", 64),
        ("1 A100-hour", "a100", 1),
        ("2.5 a100-days", "a100", 60),
        ("5000 tpu-v4-core-hours", "tpu-v4-core", 5000),
        ("5,000 TPU v4 core hours", "tpu-v4-core", 5000),
        ("5e3 TPU_V3_CORE_DAYS", "tpu-v3-core", 120_000),
        ("1 RTX 4090 day", "rtx-4090", 24),
        ("1 rtx4090-day", "rtx-4090", 24),
    ],
)
def test_device_time_is_read_however_it_is_written(text: str, device: str, hours: float):
    budget = parse_budget(text, utilisation=0.5)
    assert (budget.device, budget.hours) == (device, hours)
    assert budget.flops == pytest.approx(3600 * hours * DEVICES[device].peak_flops * 0.5)


def test_the_utilisation_is_that_of_an_nfnet_on_such_a_device():
    assert 0.35 <= parse_budget("1 tpu-v4-core-hour").utilisation <= 0.43
    assert parse_budget("1 h100-hour").utilisation == 0.2


@pytest.mark.parametrize(
    "text",
    "|0|-1|inf|nan|1e400|0 h100-hours|-3 h100-days|1e21 parsecs|64 H100|hours|64 b200-hours|64 h100-weeks|1.2.3|1,5e21"
    "|1e308 h100-days|12e h100-hours|h100-hours|1 h100-hours-days|--1|1 2|0 parsecs|1e".split("|"),
)
def test_what_is_no_budget_is_refused_with_the_units_there_are(text: str):
    with pytest.raises(InputError) as error:
        parse_budget(text)
    message = str(error.value)
    assert repr(text) in message and "FLOPs (1e21)" in message and message.count("tpu-v4-core") == 1


def test_all_faults_are_named():
    with pytest.raises(InputError, match="not positive.*unknown unit 'parsecs'.*device 'abacus'.*utilisation .=0."):
        parse_budget("0 parsecs", device="abacus", utilisation=0)
    with pytest.raises(InputError, match="device 'a100': the budget '1 h100-hour' is of H100s"):
        parse_budget("1 h100-hour", device="a100")


@hypothesis.given(st.text(max_size=30))
def test_no_text_is_read_as_anything_but_a_budget_or_a_fault(text: str):
    try:
        budget = parse_budget(text)
    except InputError:
        return
    assert 0 < budget.flops < math.inf and 0 < budget.hours < math.inf
