"""The nonlinearities of the family: their names, what they compute, and what keeps the variance of a signal."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

ActivationName = Literal["celu", "elu", "gelu", "leaky_relu", "relu", "relu6", "selu", "sigmoid", "silu", "tanh"]

# Each nonlinearity with its gamma: the factor that gives activation(N(0, 1)) unit variance. These are the constants of
# the released code, estimated there by sampling (within 0.1 % of the exact ones); published weights depend on them.
ACTIVATIONS: dict[ActivationName, tuple[Callable[[Array], Array], float]] = {
    "celu": (jax.nn.celu, 1.270926833152771),
    "elu": (jax.nn.elu, 1.2716004848480225),
    "gelu": (lambda x: jax.nn.gelu(x, approximate=False), 1.7015043497085571),
    "leaky_relu": (jax.nn.leaky_relu, 1.70590341091156),
    "relu": (jax.nn.relu, 1.7139588594436646),
    "relu6": (jax.nn.relu6, 1.7131484746932983),
    "selu": (jax.nn.selu, 1.0008515119552612),
    "sigmoid": (jax.nn.sigmoid, 4.803835391998291),
    "silu": (jax.nn.silu, 1.7881293296813965),
    "tanh": (jnp.tanh, 1.5939117670059204),
}


def gamma(activation: ActivationName) -> float:
    """The factor that makes `activation` preserve the variance of a standard normal input.

    References:
        2101.08692, section 3; 2102.06171, appendix C.
    """
    return ACTIVATIONS[activation][1]
