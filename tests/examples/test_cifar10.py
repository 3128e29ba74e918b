"""The training example runs from pictures to a checkpoint, here on cut-outs of the demo's photos."""

import importlib.util
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import nfnet_eqx as nfx

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("cifar10", ROOT / "examples" / "cifar10.py")
assert spec is not None and spec.loader is not None
cifar10 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cifar10)


def cut_outs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Small pictures, labelled by the photo that they were cut out of."""
    photos = [np.asarray(Image.open(p).convert("RGB")) for p in sorted((ROOT / "examples/images").glob("*.jpg"))[:4]]
    random, images = np.random.default_rng(0), []
    for i in range(count):
        photo = photos[i % 4]
        top, left = (random.integers(0, size - 32) for size in photo.shape[:2])
        images.append(photo[top : top + 32, left : left + 32])
    return np.stack(images), np.arange(count, dtype=np.uint8) % 4


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_an_unbroken_one_and_its_checkpoint_opens(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "DATA", tmp_path)
    for split, count in (("train", 48), ("test", 20)):
        images, labels = cut_outs(count)
        np.savez(tmp_path / f"{split}.npz", images=images, labels=labels)
    recipe = cifar10.Recipe(epochs=2, batch_size=16)

    cifar10.train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:  # the second epoch's evaluation does not come back
        results = iter([0.0])
        patch.setattr(cifar10, "accuracy", lambda model: next(results))
        with pytest.raises(StopIteration):
            cifar10.train(recipe, tmp_path / "broken")
    cifar10.train(recipe, tmp_path / "broken")

    whole, broken = (nfx.from_pretrained(tmp_path / name) for name in ("whole", "broken"))
    theirs = nfx.named_parameters(broken.model)
    for name, array in nfx.named_parameters(whole.model).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
        assert jnp.all(jnp.isfinite(array)), name
    assert whole.labels == cifar10.LABELS
    assert [json.loads(line)["epoch"] for line in (tmp_path / "broken.jsonl").read_text().splitlines()] == [1, 2]
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "% top-1**" in card and "{" not in card.split("---")[2]
