"""DeepMind's files as checkpoints: recognised, with DeepMind's evaluation, and known by their bytes."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_eqx import from_pretrained, named_parameters
from nfnet_eqx._errors import InputError
from nfnet_eqx.convert._deepmind import deepmind_to_native, read_deepmind
from nfnet_eqx.convert._load import is_foreign, load_deepmind
from nfnet_eqx.zoo import _hub
from nfnet_eqx.zoo._catalog import catalog, find

# DeepMind's code at a reduced size, which has no name of its own.
T0 = Path(__file__).resolve().parents[1] / "data" / "deepmind" / "T0_dill0.3.3_p3.npz"


def test_a_file_is_opened_with_all_that_belongs_to_it():
    ckpt = load_deepmind(T0)
    config, tensors = deepmind_to_native(read_deepmind(T0))
    assert (ckpt.config, ckpt.config.numerics, ckpt.architecture, ckpt.about) == (config, "deepmind", "dm_nfnet", {})
    parameters = named_parameters(ckpt.model)
    assert parameters.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(parameters[name], tensor, err_msg=name, strict=True)
    assert (ckpt.preprocess.resize, ckpt.preprocess.size(use_test_size=True)) == ("deepmind", (256, 256))
    assert ckpt.source.name == str(T0) and ckpt.source.commit is None
    assert ckpt.source.sha256 == {T0.name: hashlib.sha256(T0.read_bytes()).hexdigest()}


def test_from_pretrained_opens_it_whatever_it_is_called(tmp_path: Path):
    shutil.copy(T0, tmp_path / "weights")
    ckpt = from_pretrained(tmp_path / "weights", num_classes=7, dtype=jnp.bfloat16)
    assert (ckpt.architecture, ckpt.config.num_classes) == ("dm_nfnet", 7)
    assert {leaf.dtype for leaf in named_parameters(ckpt.model).values()} == {jnp.dtype(jnp.bfloat16)}
    assert list(ckpt.source.sha256) == ["weights"]


def test_parameters_go_where_they_are_wanted():
    device = jax.devices()[1]
    model = load_deepmind(T0, dtype=jnp.float16, device=device).model
    assert {(leaf.dtype.name, leaf.device) for leaf in named_parameters(model).values()} == {("float16", device)}


def test_a_published_file_is_known_by_its_md5(monkeypatch: pytest.MonkeyPatch):
    f0 = find("dm_nfnet_f0.deepmind")
    assert f0 is not None
    md5 = hashlib.md5(T0.read_bytes(), usedforsecurity=False).hexdigest()
    for license, about in ((None, {"tag": "deepmind"}), ("cc0-1.0", {"tag": "deepmind", "license": "cc0-1.0"})):
        published = (*catalog(), dataclasses.replace(f0, md5=md5, license=license))
        monkeypatch.setattr(_hub, "catalog", lambda published=published: published)
        assert from_pretrained(T0).about == about


def test_another_architecture_is_refused_with_all_that_does_not_fit():
    with pytest.raises(InputError, match=rf"{T0.name}: not the 233 arrays of dm_nfnet_f0: "):
        load_deepmind(T0, architecture="dm_nfnet_f0")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0 a picture", "is neither a pickle nor an npz archive"),
        (T0.read_bytes()[:100_000], "bytes are claimed"),
    ],
)
def test_what_is_no_file_of_deepminds_is_refused_by_its_name(content: bytes, reason: str, tmp_path: Path):
    (tmp_path / "F0_haiku.npz").write_bytes(content)
    with pytest.raises(InputError, match=f"F0_haiku.npz: .*{reason}"):
        load_deepmind(tmp_path / "F0_haiku.npz")


def test_only_an_existing_file_that_is_not_by_its_name_safetensors_is_taken_for_deepminds(tmp_path: Path):
    names = ["F0_haiku.npz", "weights", "picture.jpg", "model.safetensors", "model.safetensors.index.json"]
    for name in names:
        (tmp_path / name).touch()
    assert [name for name in names if is_foreign(tmp_path / name)] == names[:3]
    assert is_foreign(str(tmp_path / "weights"))
    assert not is_foreign(tmp_path) and not is_foreign(tmp_path / "nothing.npz") and not is_foreign("timm/x")
