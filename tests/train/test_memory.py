"""A step that cannot fit is refused before it runs, with the remedy; an out-of-memory is never told as our fault."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.train import TrainConfig, make_mesh, make_program, train
from nfnet_eqx.train import _memory as memory
from nfnet_eqx.train._memory import check_compiled, free_bytes, out_of_memory_explained
from tests.train.tiny import PREPROCESS, TINY

Changed = Callable[..., TrainConfig]


def compiled_step(total: int) -> jax.stages.Compiled:
    """A step that takes so many bytes: the new state takes the place of the old one."""
    state = jax.ShapeDtypeStruct((total // 4,), jnp.float32)
    return jax.jit(lambda state: state + 1, donate_argnums=0).lower(state).compile()


def test_a_step_far_too_large_is_refused_before_it_is_compiled_and_nothing_is_written(
    config: TrainConfig, changed: Changed, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: 2**30)
    config = changed(config, model="nfnet_cifar10", image_size=1024)
    with pytest.raises(InputError, match=r"batch_size \(=16\) at image_size \(=1024\) takes some \d+\.\d GB .* lower"):
        train(config)
    assert not config.out.exists()


def test_a_compiled_step_is_compared_with_what_is_free(
    config: TrainConfig, changed: Changed, monkeypatch: pytest.MonkeyPatch
):
    config = changed(config, batch_size=64)
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: 10**9)
    check_compiled(compiled_step(10**9), config, make_mesh())
    with pytest.raises(InputError, match=r"takes 4\.0 GB of memory on each of 8 devices, and 1\.0 GB .*16 would"):
        check_compiled(compiled_step(4 * 10**9), config, make_mesh())
    with pytest.raises(InputError, match="lower batch_size or image_size"):  # pairs on 8 devices: none below 16
        check_compiled(compiled_step(8 * 10**9), config, make_mesh())
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: None)  # a backend that does not say
    check_compiled(compiled_step(4 * 10**9), config, make_mesh())


def test_the_estimate_grows_with_the_batch_and_shrinks_with_what_saves_memory(config: TrainConfig, changed: Changed):
    def estimate(**values: object) -> int:
        other, mesh = changed(config, **values), make_mesh()
        program = make_program(other, TINY, PREPROCESS, mesh, total_steps=10)
        return memory._activation_bytes(program, other, PREPROCESS, mesh)

    one = estimate(batch_size=128)
    assert 1.8 * one < estimate(batch_size=256) <= 2 * one
    assert estimate(batch_size=128, micro_batches=4) < 0.4 * one
    assert estimate(batch_size=128, remat=True) < one
    assert estimate(batch_size=128, frozen=("stem", "stages")) < 0.3 * one


def test_a_containers_limit_counts_and_its_cache_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(memory, "_CGROUP_2", (limit, used))
    without = memory._free_on_host()
    used.write_text("70000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 20000000\nactive_file 10000000\n")
    limit.write_text("max\n")
    assert without is not None and memory._free_on_host() == pytest.approx(without, rel=0.2)
    limit.write_text("100000000\n")
    assert memory._free_on_host() == 60_000_000
    assert free_bytes(make_mesh()) == 60_000_000 // 8


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 796380592704 bytes."),
        MemoryError(),
        MemoryError("Unable to allocate 3 GiB"),
    ],
)
def test_an_out_of_memory_is_told_with_its_remedy(error: Exception, config: TrainConfig):
    with pytest.raises(InputError, match=rf"^{config.out}: out of memory \(.+\); lower batch_size or image_size"):
        with out_of_memory_explained(config):
            raise error


def test_another_error_of_the_device_stays_what_it_is(config: TrainConfig):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), out_of_memory_explained(config):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")
