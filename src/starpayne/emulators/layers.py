"""Small pieces that several networks share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from starpayne.errors import RecipeError

ACTIVATIONS = {
    # The slope that the published code uses.
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01),
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "squared_relu": lambda x: jnp.square(jax.nn.relu(x)),
}
"""What a layer may do. The smooth ones in common use come first; the others are those of imported networks."""


def check_activation(name: str) -> None:
    """Raise RecipeError for an activation that is not known."""
    if name not in ACTIVATIONS:
        raise RecipeError(f"activation {name!r} is not known; choose one of {', '.join(ACTIVATIONS)}")


def rms_norm(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Scale the last axis to unit root mean square."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
