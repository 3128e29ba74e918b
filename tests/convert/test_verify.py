"""Differences between arrays, and between what networks compute."""

import jax
import numpy as np
import pytest

from nfnet_eqx import NFNet, NFNetConfig
from nfnet_eqx._errors import InputError
from nfnet_eqx.convert._verify import Difference, compare, noise, run

CONFIG = NFNetConfig(
    depths=(1,), widths=(16,), stem_widths=(8,), stem_strides=(2,), stage_strides=(1,), group_size=4, num_classes=5
)


def difference(x: object, y: object) -> Difference:
    (found,) = compare({"x": np.asarray(x)}, {"x": np.asarray(y)})
    return found


def test_equal_arrays_are_equal_to_the_bit() -> None:
    x = np.float32([[1, -3]])
    assert difference(x, x.copy()) == ("x", (1, 2), True, 0.0, 3.0)
    assert difference(np.float32(2), np.float32(2)) == ("x", (), True, 0.0, 2.0)


def test_equal_numbers_can_differ_in_their_bits() -> None:
    found = difference(np.float32([0.0, 1.0]), np.float32([-0.0, 1.0]))
    assert not found.same_bits and found.max_abs == 0.0
    assert not difference(np.float32([1.0]), np.float64([1.0])).same_bits


def test_a_transposed_array_is_compared_by_its_values() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert difference(x, np.asfortranarray(x)).same_bits


def test_a_difference_is_measured_on_the_scale_of_the_larger_array() -> None:
    found = difference(np.float32([1.0, 2.0]), np.float32([1.5, 4.0]))
    assert (found.max_abs, found.scale, found.relative) == (2.0, 4.0, 0.5)
    assert difference(np.float32([0.0]), np.float32([-0.0])).relative == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("other", [1.0, np.nan, np.inf])
def test_what_is_not_finite_is_never_within_a_tolerance(bad: float, other: float) -> None:
    for x, y in ((bad, other), (other, bad)):
        found = difference(np.float32([x, 0.0]), np.float32([y, 0.0]))
        assert not found.relative <= 1e9, found


def test_names_and_shapes_must_be_the_same() -> None:
    a = {"u": np.zeros(2), "v": np.zeros(3), "w": np.zeros(4), "x": np.zeros(5)}
    b = {"v": np.zeros((3, 1)), "w": np.zeros(4), "x": np.zeros(6), "y": np.zeros(7)}
    with pytest.raises(InputError) as caught:
        compare(a, b)
    assert str(caught.value) == (
        "not the same network: u is missing in the second; y is missing in the first; "
        "v is (3,) in the first and (3, 1) in the second (and 1 more)"
    )


@pytest.mark.parametrize("classes", [5, 0])
def test_stages_are_the_networks_features_and_its_result(classes: int) -> None:
    fields = CONFIG.to_dict() | {"num_classes": classes, "drop_rate": 0.5, "stochastic_depth": 0.5}
    model = NFNet(NFNetConfig.from_dict(fields), key=jax.random.key(0))
    x = noise(model)
    assert (x.shape, x.dtype) == ((3, 8, 8), np.float32)
    stages = run(model, x)
    features = model.features(x, inference=True)
    assert list(stages) == [*(f"feature {i}" for i in range(len(features))), "logits"]
    for i, feature in enumerate(features):
        np.testing.assert_allclose(stages[f"feature {i}"], feature, rtol=0, atol=5e-6)
    np.testing.assert_allclose(stages["logits"], model(x, inference=True), rtol=0, atol=5e-6)
