"""The catalog of published checkpoints, against everything else that knows about them."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import nfnet_eqx
from nfnet_eqx import InputError, Preprocess, count, from_pretrained, get_config, list_models
from nfnet_eqx.models._families import get_variant
from nfnet_eqx.zoo import _catalog as module
from nfnet_eqx.zoo._catalog import Published, catalog, find
from nfnet_eqx.zoo._hub import bundled

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "examples" / "images"
TIMM = [published for published in catalog() if published.hub_id]
DEEPMIND = [published for published in catalog() if published.url]

# From the config.json of timm/dm_nfnet_f0.dm_in1k.
F0_PRETRAINED_CFG = {
    "tag": "dm_in1k",
    "custom_load": False,
    "input_size": [3, 192, 192],
    "test_input_size": [3, 256, 256],
    "fixed_input_size": False,
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "squash",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "num_classes": 1000,
    "pool_size": [6, 6],
    "first_conv": "stem.conv1",
    "classifier": "head.fc",
}

every_checkpoint = pytest.mark.parametrize("published", catalog(), ids=lambda published: published.name)
every_other = pytest.mark.parametrize("published", [*TIMM, *DEEPMIND], ids=lambda published: published.name)


def test_it_has_the_bundled_one_timms_fourteen_nfnets_and_four_vits_and_the_seven_files_of_deepmind():
    assert (len(TIMM), len(DEEPMIND)) == (18, 7)
    names = [published.name for published in catalog()]
    assert names == [*bundled(), *(published.name for published in (*TIMM, *DEEPMIND))]
    assert len(set(names)) == 26
    assert catalog() is catalog()


def test_the_bundled_one_is_what_its_folder_says():
    published, ckpt = find("nfnet_cifar10"), from_pretrained("nfnet_cifar10")
    assert published is not None
    assert (published.architecture, published.numerics) == (ckpt.architecture, ckpt.config.numerics)
    assert (published.classes, published.license) == (ckpt.config.num_classes, ckpt.about["license"])
    assert count(ckpt.config, published.test_size) == (published.parameters, published.test_macs)
    assert published.accuracy().preprocess() == ckpt.preprocess
    card = (bundled()["nfnet_cifar10"] / "README.md").read_text(encoding="utf-8")
    (result,) = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    assert (result["dataset"]["name"], result["metrics"][0]["value"]) == (published.data, published.accuracy().top1)


@every_other
def test_a_checkpoint_is_a_network_of_the_family_at_its_sizes(published: Published):
    variant = get_variant(published.architecture)
    assert (published.train_size, published.test_size) == (variant.train_size, variant.test_size)
    config = get_config(published.architecture)
    assert count(config, published.train_size) == (published.parameters, published.train_macs)
    assert count(config, published.test_size) == (published.parameters, published.test_macs)


@every_other
def test_a_name_says_what_it_is_and_where(published: Published):
    architecture, _, tag = published.name.partition(".")
    assert architecture == published.architecture
    assert find(published.name) is published
    if tag == "deepmind":
        assert published.url == f"https://storage.googleapis.com/dm-nfnets/F{architecture[-1]}_haiku.npz"
        assert published.hub_id is None
        assert published.numerics == "deepmind"
        assert published.license is None, "none is known of DeepMind's weights"
    else:
        assert published.hub_id == f"timm/{published.name}"
        assert find(published.hub_id) is published
        assert (published.url, published.md5, published.file_size) == (None, None, None)
        assert (published.numerics, published.license) == ("timm", "apache-2.0")


def test_what_is_not_published_is_not_found():
    for name in ("", "dm_nfnet_f0", "dm_nfnet_f7.dm_in1k", "timm/dm_nfnet_f0.deepmind"):
        assert find(name) is None, name


def test_deepminds_files_have_their_digests_and_a_plausible_size():
    assert all(re.fullmatch("[0-9a-f]{32}", published.md5 or "") for published in DEEPMIND)
    assert len({published.md5 for published in DEEPMIND}) == 7
    f0 = DEEPMIND[0]
    assert f0.file_size == 285_976_842
    assert 0 < f0.file_size - 4 * f0.parameters < 25_000, "float32 parameters and some names"


@every_checkpoint
def test_every_accuracy_says_how_it_was_measured(published: Published):
    sizes = [accuracy.size for accuracy in published.published]
    assert len(set(sizes)) == len(sizes) and published.test_size in sizes
    assert set(sizes) <= {published.train_size, published.test_size}
    for accuracy in published.published:
        assert published.accuracy(accuracy.size) is accuracy
        assert 40 < accuracy.top1 < 90 and accuracy.source
        assert accuracy.top5 is None or accuracy.top1 < accuracy.top5 < 100
        assert (accuracy.resize == "deepmind") == (accuracy.crop_pct is None) == (published in DEEPMIND)
        preprocess = accuracy.preprocess()
        for use_test_size in (False, True):
            assert preprocess.size(use_test_size=use_test_size) == (accuracy.size, accuracy.size)


def test_the_test_size_is_what_is_meant_and_another_needs_a_figure():
    f0 = find("dm_nfnet_f0.dm_in1k")
    assert f0 is not None
    assert (f0.accuracy().size, f0.accuracy().top1) == (256, 83.468)
    assert (f0.accuracy(192).size, f0.accuracy(192).top1) == (192, 81.436)
    with pytest.raises(InputError) as refused:
        f0.accuracy(224)
    assert str(refused.value) == "size 224: no accuracy of dm_nfnet_f0.dm_in1k is published for it; take 192 or 256"


@pytest.mark.parametrize("use_test_size", [False, True], ids=["train", "test"])
def test_the_preprocessing_is_that_of_the_published_config(use_test_size: bool):
    published = find("timm/dm_nfnet_f0.dm_in1k")
    assert published is not None
    theirs = Preprocess.from_timm(F0_PRETRAINED_CFG)
    ours = published.accuracy(published.test_size if use_test_size else published.train_size).preprocess()
    for photo in sorted(PHOTO.glob("*.jpg"))[:2]:
        np.testing.assert_array_equal(ours(photo), theirs(photo, use_test_size=use_test_size))


def test_deepminds_preprocessing_crops_32_pixels_less_than_it_resizes_to():
    f0 = find("dm_nfnet_f0.deepmind")
    assert f0 is not None
    preprocess = f0.accuracy().preprocess()
    assert (preprocess.resize, preprocess.crop_mode, preprocess.crop_pct) == ("deepmind", "squash", 256 / 288)


def test_deepminds_and_timms_figures_of_the_same_weights_are_close():
    for deepmind in DEEPMIND:
        timm = find(f"{deepmind.architecture}.dm_in1k")
        assert timm is not None and timm.parameters == deepmind.parameters
        assert abs(timm.accuracy().top1 - deepmind.accuracy().top1) < 0.15, deepmind.name


def test_the_readme_has_the_same_figures():
    row = r"^\| (\w+) \| ([\d.]+) M \| ([\d.]+) % @(\d+) \| `timm/(\S+)` \|$"
    rows = re.findall(row, (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name for *_, name in rows) == sorted(published.name for published in TIMM)
    for architecture, parameters, top1, size, name in rows:
        published = find(name)
        assert published is not None and published.architecture == architecture
        assert parameters == f"{published.parameters / 1e6:.1f}"
        assert (int(size), top1) == (published.test_size, f"{published.accuracy().top1:.2f}")


def test_the_names_that_open_by_themselves_are_listed():
    names = list_models(pretrained=True)
    assert names == ["nfnet_cifar10", *(published.name for published in TIMM)]
    assert list_models("*_l?.*", pretrained=True) == [name for name in names if re.search(r"_l\d\.", name)]
    assert list_models("dm_nfnet_f0", pretrained=True) == []


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(module) == (0, 2)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for example in finder.find(list_models, globs=vars(nfnet_eqx)):
        assert runner.run(example) == (0, 2)
