"""Our vision transformers against outputs of timm; see tests/data/timm_vit/provenance.json."""

import hashlib
import json
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

from nfnet_eqx.checkpoints import load_checkpoint
from nfnet_eqx.models import ViT

DATA = Path(__file__).parents[1] / "data" / "timm_vit"
PROVENANCE = json.loads((DATA / "provenance.json").read_text())
CASES = [(name, side) for name, facts in PROVENANCE["models"].items() for side in facts["sides"]]
TOLERANCE = 5e-6


def test_the_reference_files_are_the_ones_described() -> None:
    files = {
        path.relative_to(DATA).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(DATA.glob("*/*"))
    }
    assert files == PROVENANCE["sha256"]


@pytest.mark.parametrize(("name", "side"), CASES)
def test_logits_and_features_are_timms(name: str, side: int) -> None:
    """At the size that positions are stored for, and at a larger and a smaller one."""
    ckpt, reference = load_checkpoint(DATA / name), np.load(DATA / name / f"reference_{side}.npz")
    features, logits = eqx.filter_jit(ViT.features_and_logits)(ckpt.model, reference["input"][0])
    for i, feature in enumerate(features):
        expected = reference[f"feat{i}"][0]
        assert feature.shape == expected.shape, f"feature {i}"
        assert np.abs(feature - expected).max() / max(1.0, np.abs(expected).max()) <= TOLERANCE, f"feature {i}"
    assert np.abs(logits - reference["logits"][0]).max() <= TOLERANCE, "logits"


def test_a_network_made_for_another_size_gives_timms_outputs_there() -> None:
    model, reference = load_checkpoint(DATA / "tiny_token").model, np.load(DATA / "tiny_token" / "reference_96.npz")
    logits = eqx.filter_jit(model.at_image_size(96))(reference["input"][0])
    assert np.abs(logits - reference["logits"][0]).max() <= TOLERANCE
