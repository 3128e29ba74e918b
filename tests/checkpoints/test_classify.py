"""Classes of pictures: batches, names, probabilities."""

import io
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nfnet_eqx import Checkpoint, NFNet, NFNetConfig
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import _classify as module
from nfnet_eqx.checkpoints._classify import Prediction, classify, predict
from nfnet_eqx.images._preprocess import Preprocess

PHOTOS = sorted((Path(__file__).resolve().parents[2] / "examples" / "images").glob("*.jpg"))
LABELS = ("one", "two", "three", "four", "five", "six")
CONFIG = NFNetConfig(
    depths=(1,),
    widths=(16,),
    stem_widths=(8,),
    stem_strides=(2,),
    stage_strides=(2,),
    group_size=8,
    num_classes=len(LABELS),
)
PREPROCESS = Preprocess(input_size=(16, 16), test_input_size=(32, 24), crop_mode="squash")


def model(**changes) -> NFNet:
    config = NFNetConfig.from_dict(CONFIG.to_dict() | changes)
    network = NFNet(config, key=jax.random.key(0))
    if network.head.fc is None:
        return network
    # A fresh classifier says nothing: its weights are tiny.
    return eqx.tree_at(lambda n: n.head.fc.weight, network, 100 * network.head.fc.weight)


def test_each_picture_gets_its_own_classes_from_the_most_probable_down():
    network = model()
    run = eqx.filter_jit(lambda x: jax.nn.softmax(network(x, inference=True)))
    predictions = list(classify(network, PREPROCESS, LABELS, PHOTOS, top=4))
    assert len(predictions) == len(PHOTOS)
    assert len(set(map(tuple, predictions))) == len(PHOTOS), "two photos have the very same probabilities"
    for photo, best in zip(PHOTOS, predictions, strict=True):
        expected = np.asarray(run(jnp.asarray(PREPROCESS(photo, use_test_size=True))))
        order = np.argsort(-expected)[:4]
        assert [p.label for p in best] == [LABELS[i] for i in order], photo.name
        np.testing.assert_allclose([p.probability for p in best], expected[order], atol=5e-6, err_msg=photo.name)


def test_small_batches_give_the_same_as_a_large_one(monkeypatch: pytest.MonkeyPatch):
    network = model()
    together = list(classify(network, PREPROCESS, LABELS, PHOTOS[:5]))
    monkeypatch.setattr(module, "_BATCH_PIXELS", 2 * 32 * 24)
    apart = list(classify(network, PREPROCESS, LABELS, PHOTOS[:5]))
    assert [[p.label for p in best] for best in apart] == [[p.label for p in best] for best in together]
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose([p.probability for p in one], [p.probability for p in other], atol=5e-6)


def test_only_one_batch_of_pictures_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_BATCH_PIXELS", 1)
    running = classify(model(), PREPROCESS, LABELS, [PHOTOS[0], "missing.jpg"])
    assert next(running)
    with pytest.raises(InputError, match=r"missing\.jpg"):
        next(running)


def test_no_pictures_give_no_classes():
    assert list(classify(model(), PREPROCESS, LABELS, [])) == []


def test_all_classes_are_given_where_more_are_asked_for_and_sum_to_one():
    (best,) = classify(model(), PREPROCESS, None, [Image.open(PHOTOS[0])], top=100)
    assert sorted(p.label for p in best) == [f"class {i}" for i in range(6)]
    assert sum(p.probability for p in best) == pytest.approx(1, abs=1e-6)
    label, probability = best[0]
    assert Prediction(label, probability) == best[0]


@pytest.mark.parametrize(
    ("changes", "labels", "top", "reason"),
    [
        ({"num_classes": 0}, None, 5, "no classifier"),
        ({}, LABELS, 0, "top .=0. must be at least 1"),
        ({}, LABELS[:5], 5, "5 names for 6 classes"),
        ({"in_channels": 4}, LABELS, 5, "takes 4 channels"),
    ],
)
def test_what_cannot_be_classified_is_refused(changes: dict, labels: tuple[str, ...] | None, top: int, reason: str):
    with pytest.raises(InputError, match=reason):
        list(classify(model(**changes), PREPROCESS, labels, PHOTOS[:1], top=top))


def test_inputs_are_taken_a_batch_at_a_time_and_never_more_than_64(monkeypatch: pytest.MonkeyPatch):
    taken = 0

    def inputs() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(150):
            taken += 1
            yield np.zeros((3, 32, 24), np.float32)

    shapes = []
    run = module._probabilities
    monkeypatch.setattr(module, "_probabilities", lambda network, x: shapes.append(x.shape) or run(network, x))
    running = predict(model(), inputs(), LABELS, top=1)
    next(running)
    assert taken == 64
    assert 1 + len(list(running)) == taken == 150
    assert shapes == [(64, 3, 32, 24)] * 3, "one shape, compiled once"


def test_a_checkpoint_classifies_whatever_can_be_opened():
    ckpt = Checkpoint(model=model(), preprocess=PREPROCESS, labels=LABELS, architecture="tiny")
    expected = ckpt.classify(PHOTOS[0])
    pixels = np.asarray(Image.open(PHOTOS[0]).convert("RGB"))
    data = PHOTOS[0].read_bytes()
    for image in (str(PHOTOS[0]), data, io.BytesIO(data), Image.open(PHOTOS[0]), pixels, jnp.asarray(pixels)):
        assert ckpt.classify(image) == expected, type(image)
    assert ckpt.preprocess(PHOTOS[0]).shape == (3, 32, 24), "the size that classify uses"
