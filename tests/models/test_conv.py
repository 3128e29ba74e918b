"""`conv2d` and the pools against loops in NumPy and XLA's own convolution, in both forms."""

import concurrent.futures
import functools
from typing import Literal

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from nfnet_eqx.models import _conv
from nfnet_eqx.models._conv import avg_pool2d, conv2d, max_pool2d, native_convolutions

Padding = Literal["same", "symmetric"]


def random(*shape: int, seed: int = 0, dtype=np.float32) -> jax.Array:
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape), dtype)


def pads_of(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """TensorFlow's rule; or PyTorch's usual padding, which keeps the size where the stride is 1."""
    span = (kernel - 1) * dilation
    if padding == "same":
        total = max((-(-size // stride) - 1) * stride + span + 1 - size, 0)
        return total // 2, total - total // 2
    half = (stride - 1 + span) // 2
    return half, half


def convolved(x, weight, stride: int, dilation: int, groups: int, padding: Padding) -> np.ndarray:
    """The definition, in float64: one multiply-add after the other, over taps."""
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    kernel = weight.shape[2:]
    pads = [pads_of(size, k, stride, dilation, padding) for size, k in zip(x.shape[:2], kernel, strict=True)]
    x = np.pad(x, (*pads, (0, 0)))
    height, width = ((x.shape[i] - (kernel[i] - 1) * dilation - 1) // stride + 1 for i in range(2))
    out = np.zeros((height, width, weight.shape[0]))
    outs, ins = weight.shape[0] // groups, weight.shape[1]
    for group in range(groups):
        o, i = slice(group * outs, (group + 1) * outs), slice(group * ins, (group + 1) * ins)
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                rows = slice(row * dilation, row * dilation + (height - 1) * stride + 1, stride)
                columns = slice(column * dilation, column * dilation + (width - 1) * stride + 1, stride)
                out[..., o] += x[rows, columns, i] @ weight[o, :, row, column].T
    return out


def native(x, weight, stride: int, dilation: int, groups: int, padding: Padding) -> jax.Array:
    """XLA's own convolution in the layout of the weights, `(channels, height, width)`."""
    out = lax.conv_general_dilated(
        x.transpose(2, 0, 1)[None],
        weight,
        (stride, stride),
        [pads_of(size, k, stride, dilation, padding) for size, k in zip(x.shape[:2], weight.shape[2:], strict=True)],
        rhs_dilation=(dilation, dilation),
        feature_group_count=groups,
    )
    return out[0].transpose(1, 2, 0)


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.sampled_from([1, 2, 3, 4, 7]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["same", "symmetric"]),
)
def test_it_is_the_convolution_of_the_definition(
    size: tuple[int, int],
    kernel: int,
    stride: int,
    dilation: int,
    groups: int,
    channels: tuple[int, int],
    padding: Padding,
):
    hypothesis.assume(padding == "same" or (kernel % 2 == 1 and stride < 3))
    hypothesis.assume((kernel - 1) * dilation < min(size))
    x, weight = random(*size, channels[0] * groups), random(channels[1] * groups, channels[0], kernel, kernel, seed=1)
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    out = jax.jit(functools.partial(conv2d, **options))(x, weight)
    assert out.shape[:2] == tuple(-(-side // stride) for side in size)
    np.testing.assert_allclose(out, convolved(x, weight, **options), rtol=0, atol=2e-5)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("groups", [1, 3])
def test_it_is_xlas_own_convolution(padding: Padding, stride: int, dilation: int, groups: int):
    x, weight = random(11, 8, 4 * groups), random(6 * groups, 4, 3, 3, seed=1)
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    out = jax.jit(functools.partial(conv2d, **options))(x, weight)
    np.testing.assert_allclose(out, jax.jit(functools.partial(native, **options))(x, weight), rtol=0, atol=2e-5)


def branches(stride: int, dilation: int, groups: int, padding: Padding):
    """The CPU's and the other platforms' computation of the same grouped convolution, on a 9x8 map and 3x3 kernels."""
    pads = tuple(pads_of(size, 3, stride, dilation, padding) for size in (9, 8))
    conv = functools.partial(_conv._native, stride=stride, dilation=dilation, pads=pads)
    return functools.partial(_conv._split, conv=conv, groups=groups), functools.partial(conv, groups=groups)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_both_branches_of_a_grouped_convolution_have_the_same_values_and_gradients(
    padding: Padding, stride: int, dilation: int
):
    x, weight = random(9, 8, 12), random(8, 3, 3, 3, seed=1)
    results = []
    for branch in branches(stride, dilation, 4, padding):
        out, pullback = jax.vjp(jax.jit(branch), x, weight)
        results.append((out, *pullback(random(*out.shape, seed=2))))
    for ours, default in zip(*results, strict=True):
        np.testing.assert_allclose(ours, default, rtol=0, atol=2e-5)


def test_both_branches_of_a_1x1_convolution_have_the_same_values_and_gradients():
    x, weight = random(9, 8, 12), random(8, 12, 1, 1, seed=1)
    conv = functools.partial(_conv._native, stride=1, dilation=1, pads=((0, 0), (0, 0)), groups=1)
    results = []
    for branch in (_conv._product, conv):
        out, pullback = jax.vjp(jax.jit(branch), x, weight)
        results.append((out, *pullback(random(*out.shape, seed=2))))
    for ours, default in zip(*results, strict=True):
        np.testing.assert_allclose(ours, default, rtol=0, atol=1e-5)


def padding_of(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """What `conv2d` hands to XLA."""
    conv = functools.partial(conv2d, stride=stride, dilation=dilation, padding=padding)
    shapes = jax.ShapeDtypeStruct((size, size, 1), "float32"), jax.ShapeDtypeStruct((1, 1, kernel, kernel), "float32")
    with native_convolutions():
        equations = jax.make_jaxpr(conv)(*shapes).eqns
    (pads,) = {pads for eqn in equations for pads in eqn.params.get("padding", ())}
    return pads


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
def test_same_padding_is_tensorflows(kernel: int, stride: int):
    for size in range(1, 20):
        for dilation in (1, 2, 3):
            before, after = padding_of(size, kernel, stride, dilation, "same")
            assert (before, after) == pads_of(size, kernel, stride, dilation, "same"), (size, dilation)
            assert after - before in (0, 1), "an odd pixel is padded last"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_symmetric_padding_gives_the_size_of_same_padding(kernel: int, stride: int):
    for size in range(7, 20):
        before, after = padding_of(size, kernel, stride, 1, "symmetric")
        assert before == after
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride), size


SHAPES = {
    "full": ({"stride": 2, "groups": 1, "padding": "same"}, (6, 4, 3, 3)),
    "grouped": ({"stride": 2, "groups": 2, "padding": "symmetric"}, (6, 2, 3, 3)),
    "1x1": ({"stride": 1, "groups": 1, "padding": "same"}, (6, 4, 1, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
class TestTransformations:
    def setup(self, name: str):
        options, shape = SHAPES[name]
        return functools.partial(conv2d, **options), random(7, 6, 4), random(*shape, seed=1)

    def test_derivatives_forward_and_backward(self, name: str):
        conv, x, weight = self.setup(name)
        check_grads(jax.jit(conv), (x, weight), order=1, modes=["fwd", "rev"], atol=1e-2, rtol=1e-2)

    def test_jvp_is_xlas(self, name: str):
        conv, x, weight = self.setup(name)
        reference = functools.partial(native, **SHAPES[name][0] | {"dilation": 1})
        tangents = random(*x.shape, seed=2), random(*weight.shape, seed=3)
        for ours, xlas in zip(
            jax.jvp(jax.jit(conv), (x, weight), tangents), jax.jvp(reference, (x, weight), tangents), strict=True
        ):
            np.testing.assert_allclose(ours, xlas, rtol=0, atol=1e-5)

    def test_vmap_over_pictures_and_over_weights_is_a_loop(self, name: str):
        conv, x, weight = self.setup(name)
        xs, weights = random(3, *x.shape, seed=4), random(3, *weight.shape, seed=5)
        conv = jax.jit(conv)
        np.testing.assert_allclose(
            jax.vmap(conv, (0, None))(xs, weight), jnp.stack([conv(x, weight) for x in xs]), rtol=0, atol=1e-5
        )
        np.testing.assert_allclose(
            jax.vmap(conv)(xs, weights),
            jnp.stack([conv(x, w) for x, w in zip(xs, weights, strict=True)]),
            rtol=0,
            atol=1e-5,
        )

    def test_gradients_of_single_pictures_are_those_of_a_loop(self, name: str):
        """What differentially private training asks for."""
        conv, x, weight = self.setup(name)
        xs = random(3, *x.shape, seed=4)
        grad = jax.jit(jax.grad(lambda weight, x: jnp.sum(jnp.sin(conv(x, weight)))))
        np.testing.assert_allclose(
            jax.vmap(grad, (None, 0))(weight, xs), jnp.stack([grad(weight, x) for x in xs]), rtol=0, atol=1e-4
        )

    def test_bfloat16_stays_bfloat16(self, name: str):
        conv, x, weight = self.setup(name)
        x, weight = x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)
        out = jax.jit(conv)(x, weight)
        assert out.dtype == jnp.bfloat16
        exact = np.asarray(conv(x.astype(jnp.float32), weight.astype(jnp.float32)))
        # A few products may be rounded before they are added; one rounding is 2^-9 of the value.
        np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=0, atol=2**-7 * np.abs(exact).max())


@pytest.mark.parametrize(("groups", "kernel"), [(4, 3), (1, 1)])
def test_the_choice_of_platform_leaves_no_branch(groups: int, kernel: int):
    x, weight = random(8, 8, 16), random(16, 16 // groups, kernel, kernel)

    def loss(x: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(conv2d(x, weight, groups=groups, padding="same") ** 2)

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, weight).compile().as_text()
    assert "conditional" not in compiled


@pytest.mark.parametrize(("groups", "kernel"), [(4, 3), (1, 1)])
def test_the_choice_of_platform_leaves_nothing_in_a_jaxpr(groups: int, kernel: int):
    """Tools that translate jaxprs know `platform_index` no more than a primitive of ours."""
    x, weight = random(8, 8, 16), random(16, 16 // groups, kernel, kernel)
    text = str(jax.make_jaxpr(functools.partial(conv2d, groups=groups, padding="same"))(x, weight))
    assert "platform_index" not in text and "cond" not in text
    assert text.count("conv_general_dilated[") == (4 if kernel == 3 else 0)


def lowered(x: jax.Array, weight: jax.Array, groups: int, platform: str = "cpu") -> str:
    conv = jax.jit(functools.partial(conv2d, groups=groups, padding="same"))
    return conv.trace(x, weight).lower(lowering_platforms=(platform,)).as_text()


def test_a_grouped_convolution_is_its_groups_on_cpu_and_one_convolution_where_asked():
    x, weight = random(8, 8, 16), random(16, 4, 3, 3)
    cpu = lowered(x, weight, groups=4)
    with native_convolutions():
        native = lowered(x, weight, groups=4, platform="cuda")
    assert cpu.count("stablehlo.convolution") == 4 and "feature_group_count = 4" not in cpu
    assert native.count("stablehlo.convolution") == 1 and "feature_group_count = 4" in native


def test_a_1x1_convolution_is_a_product_on_cpu_and_a_convolution_where_asked():
    x, weight = random(8, 8, 16), random(16, 16, 1, 1)
    cpu = lowered(x, weight, groups=1)
    with native_convolutions():
        native = lowered(x, weight, groups=1, platform="cuda")
    assert cpu.count("stablehlo.dot_general") == 1 and "stablehlo.convolution" not in cpu
    assert native.count("stablehlo.convolution") == 1 and "stablehlo.dot_general" not in native


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_form_is_that_of_the_default_platform(platform: str, monkeypatch: pytest.MonkeyPatch):
    x, weight = random(8, 8, 16), random(16, 4, 3, 3)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert "feature_group_count = 4" in lowered(x, weight, groups=4, platform=platform)
    with jax.default_device(jax.devices("cpu")[0]):
        assert "feature_group_count = 4" not in lowered(x, weight, groups=4), "what the user chose goes first"


@pytest.mark.parametrize("groups", [1, 4])
def test_what_was_traced_here_is_the_same_function_on_any_platform(groups: int):
    x, weight = random(8, 8, 16), random(16, 16 // groups, 3, 3)

    def exported() -> jax.export.Exported:
        conv = jax.jit(functools.partial(conv2d, groups=groups, padding="same"))
        return jax.export.export(conv, platforms=["cpu", "cuda", "tpu"])(x, weight)

    ours = exported()
    with native_convolutions():
        natives = exported()
    assert ours.platforms == natives.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_allclose(ours.call(x, weight), natives.call(x, weight), rtol=0, atol=2e-5)


def test_native_convolutions_end_with_their_block_and_are_this_threads_alone():
    x, weight = random(8, 8, 16), random(16, 4, 3, 3)
    with native_convolutions(), concurrent.futures.ThreadPoolExecutor(1) as other:
        assert "feature_group_count = 4" not in other.submit(lowered, x, weight, groups=4).result()
    assert "feature_group_count = 4" not in lowered(x, weight, groups=4)


def windows(x: np.ndarray, start: int, size: int, stride: int):
    """Every window's position in the output, and its real pixels."""
    for row in range(-(-x.shape[0] // stride)):
        for column in range(-(-x.shape[1] // stride)):
            top, left = row * stride - start, column * stride - start
            yield (
                (row, column),
                x[max(top, 0) : top + size, max(left, 0) : left + size].reshape(-1, x.shape[2]),
            )


SIZES = [(6, 6), (7, 6), (5, 9), (1, 2), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_average_pool_is_the_mean_of_each_window(size: tuple[int, int], stride: int, padding: Padding):
    x = random(*size, 3)
    out = jax.jit(functools.partial(avg_pool2d, stride=stride, padding=padding))(x)
    assert out.shape == (-(-size[0] // stride), -(-size[1] // stride), 3)
    for position, pixels in windows(np.asarray(x, np.float64), 0, 2, stride):
        # With stride 1 the padding is averaged in, as in timm's dilated stages.
        expected = pixels.sum(axis=0) / (4 if stride == 1 else len(pixels))
        np.testing.assert_allclose(out[position], expected, rtol=0, atol=1e-6, err_msg=str(position))


@pytest.mark.parametrize("size", SIZES)
def test_max_pool_is_the_maximum_of_each_window(size: tuple[int, int]):
    x = random(*size, 3) - 10  # padding with zeros would win
    out = jax.jit(max_pool2d)(x)
    assert out.shape == (-(-size[0] // 2), -(-size[1] // 2), 3)
    for position, pixels in windows(np.asarray(x), 1, 3, 2):
        np.testing.assert_array_equal(out[position], pixels.max(axis=0), err_msg=str(position))


@pytest.mark.parametrize(
    "pool",
    [*(functools.partial(avg_pool2d, stride=stride, padding="same") for stride in (1, 2)), max_pool2d],
)
def test_pools_can_be_differentiated_mapped_and_halved(pool):
    x = jr.permutation(jr.key(0), jnp.arange(7.0 * 6 * 2)).reshape(7, 6, 2) / 10  # no ties
    check_grads(jax.jit(pool), (x,), order=1, modes=["fwd", "rev"], atol=1e-2, rtol=1e-2, eps=1e-2)
    xs = random(3, 7, 6, 2)
    np.testing.assert_allclose(jax.vmap(pool)(xs), jnp.stack([pool(x) for x in xs]), rtol=0, atol=1e-6)
    half = pool(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), pool(x), rtol=2**-7, atol=2**-7)


def test_an_average_pool_of_a_large_picture_compiles_to_a_sum_and_a_constant():
    """Counting each window's pixels in XLA took 20 s of compilation at F7's 608 px."""
    text = jax.jit(functools.partial(avg_pool2d, stride=2, padding="same")).lower(
        jax.ShapeDtypeStruct((152, 152, 256), jnp.float32)
    )
    assert text.as_text().count("stablehlo.reduce_window") == 1
