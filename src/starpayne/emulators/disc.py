"""The flux of a star from an emulator of intensities: integration over the visible disc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from starpayne.emulators.base import BoundEmulator, Emulator
from starpayne.emulators.domain import SpectralDomain
from starpayne.errors import LabelError

NODES = 12
"""Gauss–Legendre nodes between the viewing angles of a grid that is not made of rings."""

MOST_UNSEEN = 0.1
"""Largest part of the disc, by area, that may lie beyond the outermost viewing angles of a grid."""


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Nodes and weights of a sum over the disc: 2 ∫₀¹ i(μ) μ dμ ≈ Σ weight · i(mu); the weights add up to one.

    Args:
        mu: (n,) float64 cosines of viewing angles.
        weight: (n,) float64, the part of the disc's area that each stands for.
    """

    mu: np.ndarray
    weight: np.ndarray


def rings(n: int) -> np.ndarray:
    """Return the midpoints of n rings of equal area, μ = sqrt((j + 1/2) / n), increasing."""
    return np.sqrt((np.arange(n) + 0.5) / n)


def unseen(mu: ArrayLike | Sequence[float]) -> float:
    """Return the part of the disc's area beyond the smallest and the largest μ: 0 for rings of equal area."""
    mu = np.sort(np.asarray(mu, np.float64))
    return 0.0 if _are_rings(mu) else float(mu[0] ** 2 + 1 - mu[-1] ** 2)


def disc_quadrature(mu: ArrayLike | Sequence[float]) -> Quadrature:
    """Return the quadrature that suits the viewing angles of a training grid.

    Angles at the midpoints of rings of equal area are nodes of equal weight. That is how the PySME engine sums its
    flux, so that an exact emulator of a grid with the engine's own rings gives the grid's flux exactly.

    Any other angles bound Gauss–Legendre nodes in μ, in which limb darkening is close to linear (in μ² it has a
    square-root singularity at the limb). Nothing is extrapolated: beyond the outermost angles the intensity is held
    constant, wrong by i′ μ_min³ / 3 at the limb and i′ (1 − μ_max)² at the centre, with i′ = di/dμ ≲ 1: 0.03 % of the
    flux for μ_min = 0.1.

    Args:
        mu: (n,) cosines of the viewing angles of the grid (``emulator.domain.mu``).

    Raises:
        LabelError: for fewer than two angles, or angles that leave more than a tenth of the disc unseen.
    """
    mu = np.sort(np.asarray(mu, np.float64))
    if len(mu) < 2 or not (0 < mu[0] < mu[-1] <= 1):
        raise LabelError(f"mu = {mu.tolist()}: at least two different cosines of viewing angles in (0, 1] are needed")
    if _are_rings(mu):
        return Quadrature(mu, np.full(len(mu), 1 / len(mu)))
    if unseen(mu) > MOST_UNSEEN:
        raise LabelError(
            f"the viewing angles mu = {mu[0]:g} to {mu[-1]:g} leave {100 * unseen(mu):.0f} % of the disc unseen, "
            f"at most {100 * MOST_UNSEEN:.0f} % may be; take a grid with angles nearer to 0 and 1, or give a Quadrature"
        )
    x, w = np.polynomial.legendre.leggauss(NODES)
    low, high = mu[0], mu[-1]
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * x
    inside = (high - low) * w * nodes
    weight = np.concatenate([[low**2], inside, [1 - high**2]])
    return Quadrature(np.concatenate([[low], nodes, [high]]), weight)


def disc_flux(
    emulator: BoundEmulator | Emulator, labels: Float[Array, " stellar"], quadrature: Quadrature | None = None
) -> Float[Array, " wavelengths"]:
    """Return the normalised flux of the whole disc, 2 ∫ i μ dμ, from an emulator of intensities.

    A pure function of the labels, to jit, vmap and differentiate.

    Args:
        emulator: of intensities, bound to wavelengths (``emulator.on(wavelength)``), or on its own ones.
        labels: the physical labels of the star, without ``mu``.
        quadrature: nodes and weights; by default those of :func:`disc_quadrature` for the training grid.

    Raises:
        LabelError: if the emulator does not give intensities, or its angles do not cover the disc.

    Example:
        ``flux = jax.vmap(lambda x: disc_flux(bound, x))(labels)``
    """
    bound = emulator.on() if isinstance(emulator, Emulator) else emulator
    rule = quadrature or quadrature_of(bound.emulator.domain)
    mu = jnp.asarray(rule.mu, jnp.float32)
    stars = jnp.broadcast_to(jnp.asarray(labels, jnp.float32), (len(mu), labels.shape[0]))
    intensity = bound.batch(jnp.concatenate([stars, mu[:, None]], axis=1))[:, 0]
    return jnp.asarray(rule.weight, jnp.float32) @ intensity


def quadrature_of(domain: SpectralDomain) -> Quadrature:
    """Return the quadrature of an emulator's domain; LabelError if it is not one of intensities."""
    if domain.quantity != "intensity":
        raise LabelError("this emulator gives the flux of the whole disc already; call it instead of disc_flux")
    return disc_quadrature(domain.mu)


def _are_rings(mu: np.ndarray) -> bool:
    return len(mu) > 1 and bool(np.allclose(mu, rings(len(mu)), rtol=0, atol=1e-4))
