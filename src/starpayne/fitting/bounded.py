"""The step of a least-squares problem that stays in the unit cube: a small quadratic program, in pure JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, Int

MAX_ROUNDS = 8
"""Of a hundred steps of real descents, 99 promise 98 % or more of what they would after twenty rounds; all lanes of a
batch wait for the last."""

ENOUGH = 1e-3
"""A round that lowers χ² by less than this fraction of what all rounds have gained is the last."""

RIDGE = 3e-6
"""Added to the unit diagonal of what is decomposed, which rounding may have made indefinite. The rounds after the first
make up for it."""

LENGTHS = 0.5 ** jnp.arange(8)
"""Lengths tried along each direction, as fractions of it."""


def bounded_step(
    hessian: Float[Array, "p p"], gradient: Float[Array, " p"], theta: Float[Array, " p"], damping: Array | float
) -> tuple[Float[Array, " p"], Float[Array, ""]]:
    """Return the damped step that stays in the unit cube, and by how much it should lower χ².

    A projected Newton method (Bertsekas 1982, SIAM J. Control Optim. 20, 221): parameters on a bound that push
    outwards are held, the others are solved, and the way there, bent along the bounds, is searched for its lowest
    point. A parameter is let go again when the others make it turn inwards. Merely to clip the solution at the bounds
    is not enough: with many labels that the spectrum hardly constrains, the clipped step may lead uphill.
    """
    diagonal = jnp.diagonal(hessian)
    scale = jnp.sqrt(jnp.maximum(diagonal, 1e-10 * jnp.max(diagonal) + 1e-20))
    unit = jnp.eye(len(theta))
    # In units of each parameter's own curvature: float32 keeps its digits.
    matrix = hessian / (scale[:, None] * scale) + damping * unit
    force, low, high = gradient / scale, -theta * scale, (1 - theta) * scale

    def height(step: Float[Array, "*n p"]) -> Float[Array, "*n"]:
        return step @ force + 0.5 * jnp.sum(step @ matrix * step, axis=-1)

    def improve(loop: tuple[Array, Array, Array]) -> tuple[Array, Int[Array, ""], Bool[Array, ""]]:
        step, rounds, _ = loop
        slope = force + matrix @ step
        free = ~(((step <= low) & (slope > 0)) | ((step >= high) & (slope < 0)))
        ahead = jnp.where(free, -slope, 0.0)
        held = jnp.where(free[:, None] & free[None, :], matrix + RIDGE * unit, unit)
        newton = cho_solve((jnp.linalg.cholesky(held, symmetrize_input=False), True), ahead)
        directions = jnp.stack([newton, ahead])
        tried = jnp.clip(step + LENGTHS[:, None, None] * directions, low, high).reshape(-1, len(theta))
        heights = height(tried)
        best = jnp.nanargmin(jnp.where(jnp.isfinite(heights), heights, jnp.inf))
        gained = height(step) - heights[best]
        better = gained > 0
        step = jnp.where(better, tried[best], step)
        return step, rounds + 1, ~(gained > -ENOUGH * height(step))

    def proceed(loop: tuple[Array, Array, Array]) -> Bool[Array, ""]:
        return (loop[1] < MAX_ROUNDS) & ~loop[2]

    start = jnp.clip(jnp.zeros_like(theta), low, high)
    step = jax.lax.while_loop(proceed, improve, (start, jnp.asarray(0), jnp.asarray(False)))[0] / scale
    return step, -(2 * gradient @ step + step @ hessian @ step)
