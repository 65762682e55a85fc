"""The posterior density of one star around where its fit ended, in coordinates in which it is about a unit Gaussian."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from starpayne.emulators import BoundEmulator
from starpayne.fitting.pixels import AnyArray
from starpayne.fitting.problem import Descent
from starpayne.fitting.setup import Setup
from starpayne.fitting.solver import (
    Parameters,
    Problem,
    normalised_model,
    orthonormal,
    prior_residual,
    whitened,
    widths,
)
from starpayne.fitting.statistics import covariance_factor, prior_rows

SOFTENING = 1e-6
"""km²/s²: keeps the density of a width finite at zero."""


class Target(eqx.Module):
    """The density to draw from, in coordinates z in which it is about a unit Gaussian.

    The logits of the point of the unit cube are centre + spread z.

    Args:
        problem: that of the fit, with the widths free up to what the options allow.
        centre: (p,) logits of the best fit; ``spread`` (p, p) the root of their covariance.
        reference: (n,) residual at the centre.
        inflation: χ² is divided by it.
    """

    bound: BoundEmulator
    parameters: Parameters = eqx.field(static=True)
    problem: Problem
    centre: Float[AnyArray, " p"]
    spread: Float[AnyArray, "p p"]
    reference: Float[AnyArray, " n"]
    inflation: Float[AnyArray, ""]


def target_of(descent: Descent, setup: Setup) -> Target:
    """Return the density around where a fit ended."""
    parameters, plan, problem, options = setup.parameters, descent.plan, descent.problem, setup.options
    theta, n = descent.theta, len(parameters.labels)
    residual, jacobian = descent.projected
    inflation = covariance_factor(descent, residual, len(parameters))
    by_prior = prior_rows(problem, parameters, setup, theta, descent.widths(parameters))[1]
    hessian = jacobian.T @ jacobian / inflation + by_prior.T @ by_prior

    # The room of a descent would cut the tails of widths that the spectrum hardly constrains.
    high = plan.high.copy()
    high[1:] = options.vsini_limits[1] ** 2, options.broadening_limits[1] ** 2
    free = [parameters.rv, parameters.vsini, parameters.broadening]
    stretch = np.ones(len(theta))
    stretch[n:] = ((high - plan.low)[free]) / ((plan.high - plan.low)[free])
    hessian *= np.outer(stretch, stretch)
    # A fit on a bound: the centre lies where the posterior does, inside it.
    sigma = np.sqrt(np.diag(np.linalg.inv(hessian + np.eye(len(theta)))))
    edge = np.clip(0.7 * sigma, 1e-7, 0.3)
    cube = np.clip(theta / stretch, edge, 1 - edge)
    # A flat density in the cube is a logistic one in the logits, whose curvature is 2u(1 − u).
    slope = cube * (1 - cube)
    covariance = np.linalg.inv(hessian * np.outer(slope, slope) + np.diag(2 * slope))
    problem = problem._replace(high=high.astype(np.float32))
    target = Target(
        descent.scene.star.bound, parameters, problem,
        np.log(cube / (1 - cube)).astype(np.float32), np.linalg.cholesky(covariance).astype(np.float32),
        np.zeros(len(problem.flux), np.float32), np.asarray(inflation, np.float32),
    )  # fmt: skip
    target = jax.tree.map(jnp.asarray, target)
    return eqx.tree_at(lambda t: t.reference, target, reference_of(target))


def residual_and_volume(problem: Problem, model: Float[AnyArray, " n"]) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Return the whitened residual with the continuum solved, and ½ log det DᵀD of its whitened design D.

    The integral of exp(−½ ‖data − D c‖²) over c is exp(−½ ‖residual‖²) (det DᵀD)^(−1/2), up to a constant.
    """
    w = problem.inverse_error
    data = whitened(problem, problem.flux * w)
    q, to_q = orthonormal(whitened(problem, problem.basis.T * (model * w)))
    return data - (q @ data) @ q, -jnp.sum(jnp.log(jnp.diagonal(to_q)))


@eqx.filter_jit
def reference_of(target: Target) -> Float[Array, " n"]:
    theta = jax.nn.sigmoid(jnp.asarray(target.centre))
    return residual_and_volume(
        target.problem, normalised_model(target.bound, target.parameters, target.problem, theta)
    )[0]


def log_density(target: Target, z: Float[Array, " p"]) -> Float[Array, ""]:
    """Return the log density at z, up to a constant."""
    parameters, problem, labels = target.parameters, target.problem, target.parameters.labels
    logits, n = target.centre + target.spread @ z, len(labels)
    theta = jax.nn.sigmoid(logits)
    residual, volume = residual_and_volume(problem, normalised_model(target.bound, parameters, problem, theta))
    # Differences before squares: the sum of float32 squares would lose a change of a few in 10⁶.
    gained = jnp.sum((target.reference - residual) * (target.reference + residual))
    total = 0.5 * gained / target.inflation - volume
    total += jnp.sum(jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(-logits))
    if labels.free is not None:
        # A label's interval depends on those before it alone: the determinant is the product of the diagonal. Where
        # the constraints leave an interval empty its length is negative, and the density zero.
        length = jnp.diagonal(jax.jacfwd(labels.free.from_cube)(theta[:n]))
        total += jnp.sum(jnp.where(length > 0, jnp.log(jnp.maximum(length, 1e-30)), -jnp.inf))
    values = widths(parameters, problem, theta)
    # Flat in the width, of which the cube has the square: dv = dq / 2v.
    squares = values[1:][np.array([parameters.vsini, parameters.broadening])]
    total -= 0.5 * jnp.sum(jnp.log(squares + SOFTENING))
    if problem.prior is not None:
        total -= 0.5 * jnp.sum(prior_residual(parameters, problem, problem.prior, theta) ** 2)
    return total
