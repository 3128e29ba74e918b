"""Our networks against outputs of timm, one tiny network of each family; see tests/data/timm/provenance.json."""

import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

from nfnet_eqx.checkpoints._tensors import load_tensors, open_safetensors
from nfnet_eqx.checkpoints._timm import config_from_timm
from nfnet_eqx.models._nfnet import NFNet

DATA = Path(__file__).parents[1] / "data" / "timm"
PROVENANCE = json.loads((DATA / "provenance.json").read_text())
TOLERANCE = 5e-6


def test_the_reference_files_are_the_ones_described() -> None:
    files = {
        path.relative_to(DATA).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(DATA.glob("*/*"))
    }
    assert files == PROVENANCE["sha256"]


def test_there_is_a_reference_of_every_family() -> None:
    assert len(PROVENANCE["models"]) == 8


def load(name: str) -> Any:
    _, config = config_from_timm(json.loads((DATA / name / "config.json").read_text()))
    with open_safetensors(DATA / name / "model.safetensors") as tensors:
        return load_tensors(config, tensors, source=name)


def logits_of(model: NFNet, last_feature: jax.Array) -> jax.Array:
    """What calling the network returns, without compiling all of it a second time."""
    return model.head(model.final_act(last_feature.transpose(1, 2, 0)))


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("name", PROVENANCE["models"])
def test_logits_and_features_are_timms(name: str, size: int) -> None:
    model, reference = load(name), np.load(DATA / name / f"reference_{size}.npz")
    features = eqx.filter_jit(NFNet.features)(model, reference["input"][0])
    assert len(features) == 5
    for i, feature in enumerate(features):
        expected = reference[f"feat{i}"][0]
        assert feature.shape == expected.shape, f"feature {i}"
        # Feature maps reach 14, where timm's own float32 is up to 7.8e-6 away from timm in float64 (measured): 5e-6
        # is meant on the scale of the map where that is above 1.
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.abs(feature - expected).max() / scale <= TOLERANCE, f"feature {i}"
    assert np.abs(logits_of(model, features[-1]) - reference["logits"][0]).max() <= TOLERANCE, "logits"


def test_calling_the_network_is_its_last_feature_and_the_head() -> None:
    model, x = load("tiny_nf_resnet"), np.load(DATA / "tiny_nf_resnet" / "reference_64.npz")["input"][0]
    features = eqx.filter_jit(NFNet.features)(model, x)
    np.testing.assert_allclose(eqx.filter_jit(model)(x), logits_of(model, features[-1]), rtol=0, atol=TOLERANCE)
