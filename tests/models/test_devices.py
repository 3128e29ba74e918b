"""Hours on accelerators: those that the papers state, from their models and the devices' peak rates."""

import math

import pytest

from nfnet_eqx import InputError, flops, get_config
from nfnet_eqx.models import DEVICES, device_hours, measured_utilisation

V4 = DEVICES["tpu-v4-core"]


def test_the_papers_largest_run_takes_its_hours_at_the_utilisation_that_was_derived():
    """2310.16764: F7+ saw 4 billion images eight times, in 110k TPU-v4 core hours."""
    training = 8 * 4e9 * flops(get_config("dm_nfnet_f7_plus"), 224)
    assert device_hours(training, V4, 0.355) == pytest.approx(110e3, rel=0.01)


def test_hours_and_utilisation_are_each_others_inverse():
    for device in DEVICES.values():
        assert measured_utilisation(1e21, device, 3600 * device_hours(1e21, device, 0.4)) == pytest.approx(0.4)


def test_a_device_at_its_peak_does_in_an_hour_what_its_data_sheet_says():
    assert device_hours(989.4e12 * 3600, DEVICES["h100"], 1.0) == 1.0
    # "TPU-v4 core has about twice the theoretical FLOPs of a v3 core" (2310.16764).
    assert V4.peak_flops / DEVICES["tpu-v3-core"].peak_flops == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("utilisation", [0.0, -0.1, 1.01, math.nan])
def test_a_utilisation_that_is_no_share_is_refused(utilisation: float):
    with pytest.raises(InputError, match=r"utilisation \(=.*\) must be above 0 and at most 1"):
        device_hours(1e21, V4, utilisation)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_operations_and_seconds_that_are_no_positive_number_are_refused(value: float):
    with pytest.raises(InputError, match=r"flops \(=.*\) must be a positive number"):
        device_hours(value, V4, 0.4)
    with pytest.raises(InputError, match=r"seconds \(=.*\) must be a positive number"):
        measured_utilisation(1e21, V4, value)
