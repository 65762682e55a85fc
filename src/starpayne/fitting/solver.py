"""The least-squares problem of one star, and its projection (variable projection), in pure JAX; see steps.py.

Nonlinear parameters (label coordinates, velocity, squares of the broadening velocities) live in the unit cube.
The continuum coefficients are linear: they are solved at every step, and the derivative is that of the remaining
residual (Kaufman 1975, BIT 15, 49), so errors derived from it are marginalised over them. The emulator's error, whose
covariance has low rank, enters by whitening: it is the same as to solve for the amplitudes of its modes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from starpayne.emulators import BoundEmulator
from starpayne.fitting.broadening import Broadening
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.pixels import AnyArray, PixelMatrix

ROOT_SOFTENING = 0.01
"""km²/s² added to the square of a width with a prior: a tenth of a km/s keeps the derivative of its root finite at
zero."""


@dataclass(frozen=True)
class Parameters:
    """Which nonlinear parameters there are, in order: free labels, then those of rv, vsini, broadening that are
    free."""

    labels: FreeLabels
    rv: bool
    vsini: bool
    broadening: bool

    def __len__(self) -> int:
        return len(self.labels) + self.rv + self.vsini + self.broadening

    @property
    def names(self) -> tuple[str, ...]:
        extra = {"rv": self.rv, "vsini": self.vsini, "broadening": self.broadening}
        return (*self.labels.names, *(name for name, free in extra.items() if free))


class Prior(NamedTuple):
    """Independent Gaussians on labels (physical units), shift, v sin i and broadening (km/s), in this order.

    Args:
        mean: (n_labels + 3,).
        inverse_sigma: (n_labels + 3,), 0 where there is none.
    """

    mean: Float[AnyArray, " values"]
    inverse_sigma: Float[AnyArray, " values"]


class Problem(NamedTuple):
    """One star: everything the solver needs but the emulator; padded pixels have an inverse error of 0.

    Args:
        broadening, pixels: the star's forward model, from line depths on the emulator's grid to its pixels.
        flux: (n,) of order one; inverse_error: (n,).
        basis: (n, n_continuum) continuum curves, far from dependent on the pixels in use.
        whitener: (k, n) Bᵀ such that x − B Bᵀ x is C^(−1/2) x, where C is the covariance of the pixels in units of
            their errors, that of the emulator's error included.
        low, high: (3,) bounds of shift (km/s), vsini² and sigma² (km²/s²); ``low`` is the value of a fixed one.
        prior: None for a flat one.
    """

    broadening: Broadening
    pixels: PixelMatrix
    flux: Float[AnyArray, " n"]
    inverse_error: Float[AnyArray, " n"]
    basis: Float[AnyArray, "n n_continuum"]
    whitener: Float[AnyArray, "k n"]
    low: Float[AnyArray, " three"]
    high: Float[AnyArray, " three"]
    prior: Prior | None = None


class Solution(NamedTuple):
    """Where the solver ended: position in the unit cube, χ², steps taken, and the model and its derivative there."""

    theta: Float[AnyArray, " p"]
    chi2: float
    iterations: int
    model: Float[AnyArray, " n"]
    jacobian: Float[AnyArray, "p n"]


def widths(parameters: Parameters, problem: Problem, theta: Float[AnyArray, " p"]) -> Float[AnyArray, " three"]:
    """Return shift, vsini² and sigma² at a point of the unit cube."""
    values, i = [], len(parameters.labels)
    for j, free in enumerate((parameters.rv, parameters.vsini, parameters.broadening)):
        if free:
            values.append(problem.low[j] + (problem.high[j] - problem.low[j]) * theta[i])
            i += 1
        else:
            values.append(problem.low[j])
    return jnp.stack(values)


def model_and_jacobian(
    bound: BoundEmulator,
    parameters: Parameters,
    problem: Problem,
    theta: Float[AnyArray, " p"],
    one_by_one: bool = False,
) -> tuple[Float[AnyArray, " n"], Float[AnyArray, "p n"]]:
    """Return the normalised model on the pixels and its derivative by each parameter.

    Observing is linear in the spectrum: the emulator is differentiated by the labels alone, and all derivatives pass
    through one Fourier transform and one matrix.

    Args:
        one_by_one: differentiate by one label after another rather than by all at once.
    """
    n, broadening = len(parameters.labels), problem.broadening

    def emulate(cube: AnyArray) -> Array:
        return bound(parameters.labels.from_cube(cube)) - 1

    def derivative(tangent: AnyArray) -> tuple[Array, Array]:
        return jax.jvp(emulate, (theta[:n],), (tangent,))

    if n and one_by_one:
        depth, linear = jax.linearize(emulate, theta[:n])
        stack = jnp.concatenate([depth[None], jax.lax.map(linear, jnp.eye(n))])
    elif n:
        depth, by_label = jax.vmap(derivative, out_axes=(None, 0))(jnp.eye(n))
        stack = jnp.concatenate([depth[None], by_label])
    else:
        stack = emulate(theta[:0])[None]

    width, others = theta[n:], len(parameters) - n

    def transfer(width: AnyArray) -> Array:
        return broadening.transfer(*widths(parameters, problem, jnp.concatenate([theta[:n], width])))

    def transfers() -> Array:
        by_width = jax.vmap(lambda t: jax.jvp(transfer, (width,), (t,))[1])(jnp.eye(others))
        return jnp.concatenate([transfer(width)[None], by_width]) if others else transfer(width)[None]

    spectra, response = broadening.spectrum(stack), broadening.once(transfers)
    products = jnp.concatenate([spectra * response[0], spectra[:1] * response[1:]])
    observed = problem.pixels(broadening.back(products, stack.shape[-1]))
    return 1 + observed[0], observed[1:]


def normalised_model(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, theta: Float[AnyArray, " p"]
) -> Float[AnyArray, " n"]:
    """Return the normalised model on the pixels alone."""
    labels = parameters.labels.from_cube(theta[: len(parameters.labels)])
    return 1 + problem.pixels(problem.broadening(bound(labels) - 1, *widths(parameters, problem, theta)))


def whitened(problem: Problem, rows: Float[AnyArray, "*rows n"]) -> Float[AnyArray, "*rows n"]:
    """Multiply rows in units of the errors by C^(−1/2)."""
    return rows - (rows @ problem.whitener.T) @ problem.whitener


def orthonormal(rows: Float[AnyArray, "c n"]) -> tuple[Float[AnyArray, "c n"], Float[AnyArray, "c c"]]:
    """Return orthonormal rows q, and the lower triangular matrix t, with q = t rows.

    By two Cholesky decompositions (Yamamoto et al. 2015, ETNA 44, 306), as good as a Householder QR for rows that are
    not nearly dependent, as those of a problem are made; of the triangles only, small ones, are the inverses solved
    for. So all the rest are products, which a GPU does for many stars at once; and on a CPU a third faster than the
    other.
    """
    unit = jnp.eye(len(rows))
    total = unit
    for _ in range(2):
        gram = rows @ rows.T
        # Columns that no pixel determines stay solvable; what they find is not used.
        least = 1e-7 * jnp.max(jnp.diagonal(gram)) + 1e-30
        inverse = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(gram + least * unit), unit, lower=True)
        rows, total = inverse @ rows, inverse @ total
    return rows, total


def without_continuum(
    problem: Problem, model: Float[AnyArray, " n"]
) -> tuple[Float[AnyArray, " n"], Float[AnyArray, "c n"], Float[AnyArray, " n"]]:
    """Return the whitened residual, orthonormal rows of what the continuum explains, and the continuum."""
    w = problem.inverse_error
    # Whitened in one product: that reads more than it computes.
    rows = whitened(problem, jnp.concatenate([problem.basis.T * (model * w), (problem.flux * w)[None]]))
    q, to_q, data = *orthonormal(rows[:-1]), rows[-1]
    along = q @ data
    return data - along @ q, q, problem.basis @ (along @ to_q)


def prior_residual(
    parameters: Parameters, problem: Problem, prior: Prior, theta: Float[AnyArray, " p"]
) -> Float[Array, " values"]:
    """Return how far each value is from the mean of its prior, in units of its σ; 0 where there is none."""
    shift, vsini2, sigma2 = widths(parameters, problem, theta)
    width = jnp.sqrt(jnp.stack([vsini2, sigma2]) + ROOT_SOFTENING)
    labels = parameters.labels.from_cube(theta[: len(parameters.labels)])
    return (jnp.concatenate([labels, shift[None], width]) - prior.mean) * prior.inverse_sigma


def residual_at(
    parameters: Parameters, problem: Problem, theta: Float[AnyArray, " p"], model: Float[AnyArray, " n"]
) -> Float[AnyArray, " rows"]:
    """Return the residual of the pixels, then of the prior, where the model is known."""
    residual = without_continuum(problem, model)[0]
    if problem.prior is None:
        return residual
    return jnp.concatenate([residual, prior_residual(parameters, problem, problem.prior, theta)])


def used_rows(problem: Problem) -> Int[Array, ""]:
    """Return how many pixels count, at least one."""
    return jnp.maximum(jnp.sum(problem.inverse_error > 0), 1)
