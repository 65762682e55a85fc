"""A polynomial in the labels at every pixel: of degree 2 it is The Cannon (Ness et al. 2015, ApJ 808, 16)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from starpayne.emulators.base import HostArray, SpectralDomain
from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.emulators.fixed_grid import FixedGridEmulator
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_wavelength

MAX_TERMS = 50_000
"""Most terms of a polynomial: a model file must not make its reader work without bound."""


class Polynomial(FixedGridEmulator):
    """A polynomial of given total degree in the labels, in a basis orthonormal on the label region.

    Args:
        coefficients: (terms, channels · pixels), of products of Legendre polynomials.
        center, width: (channels, pixels); the output is ``center + width * polynomial``.
        degree: largest total degree of a term.
        wavelength: the pixels, Å, in ``domain.medium``.
    """

    coefficients: Float[Array, "terms outputs"]
    center: Float[Array, "channels pixels"]
    width: Float[Array, "channels pixels"]
    space: LabelSpace = eqx.field(static=True)
    domain: SpectralDomain = eqx.field(static=True)
    channels: tuple[str, ...] = eqx.field(static=True)
    wavelength: HostArray = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    architecture: ClassVar[str] = "polynomial"

    @classmethod
    def initialise(
        cls,
        space: LabelSpace,
        domain: SpectralDomain,
        channels: tuple[str, ...],
        wavelength: np.ndarray,
        *,
        degree: int,
    ) -> Polynomial:
        """Return the polynomial whose coefficients are all zero."""
        wavelength = check_wavelength(wavelength)
        shape = (len(channels), len(wavelength))
        coefficients = jnp.zeros((count_terms(len(space), degree), len(channels) * len(wavelength)))
        return cls(
            coefficients=coefficients, center=jnp.zeros(shape), width=jnp.ones(shape), space=space, domain=domain,
            channels=tuple(channels), wavelength=HostArray(wavelength), degree=degree,
        )  # fmt: skip

    @classmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> Polynomial:
        return cls.initialise(
            space, domain, channels, np.asarray(config["wavelength"], np.float64), degree=config["degree"]
        )

    @property
    def config(self) -> dict[str, Any]:
        return {"degree": self.degree, "wavelength": self.wavelength.values.tolist()}

    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        return {}

    @property
    def floats_within(self) -> int:
        return 3 * self.coefficients.shape[0] + 3 * self.coefficients.shape[1]

    def pixels(self, labels: Float[Array, " labels"]) -> Float[Array, "channels pixels"]:
        cube = smooth_coordinates(self.space, jnp.asarray(labels, jnp.float32))
        values = terms(cube, self.degree) @ self.coefficients
        return self.center + self.width * values.reshape(self.center.shape)


def count_terms(n_labels: int, degree: int) -> int:
    """Return the number of terms of total degree up to ``degree`` in so many labels; RecipeError for too many."""
    if not isinstance(degree, int) or not 1 <= degree <= 20:
        raise RecipeError(f"degree = {degree!r} is outside the range 1 to 20")
    n = math.comb(n_labels + degree, degree)
    if n > MAX_TERMS:
        raise RecipeError(f"degree = {degree} in {n_labels} labels has {n:,} terms, more than {MAX_TERMS:,}")
    return n


def terms(cube: Any, degree: int) -> Any:
    """Return the basis (..., terms) at points (..., n_labels) of the unit cube; NumPy in, NumPy out; JAX in, JAX out.

    Each is a product of Legendre polynomials of single labels, of total degree up to ``degree``, normalised to unit
    mean square over the cube. Bounded and orthonormal, they leave float32 nothing to cancel, which powers would.
    """
    xp = np if isinstance(cube, np.ndarray) else jnp
    x = 2 * cube - 1
    legendre = [xp.ones_like(x), x]
    for k in range(1, degree):
        legendre.append(((2 * k + 1) * x * legendre[k] - k * legendre[k - 1]) / (k + 1))
    # One table of all factors: 1, then every label at degree 1, then every label at degree 2, …
    factors = [xp.ones_like(x[..., :1]), *(math.sqrt(2 * k + 1) * legendre[k] for k in range(1, degree + 1))]
    table = xp.concatenate(factors, axis=-1)
    chosen = _factors(x.shape[-1], degree)
    product = table[..., chosen[:, 0]]
    for column in range(1, degree):
        product = product * table[..., chosen[:, column]]
    return product


def degrees(n_labels: int, degree: int) -> np.ndarray:
    """Return (terms, n_labels): the degree of each label's Legendre polynomial in each term, as :func:`terms` orders
    them."""
    places = _factors(n_labels, degree)
    found = np.zeros((len(places), n_labels), int)
    for column in places.T:
        rows = np.flatnonzero(column)
        found[rows, (column[rows] - 1) % n_labels] = (column[rows] - 1) // n_labels + 1
    return found


@lru_cache(maxsize=16)
def _factors(n_labels: int, degree: int) -> np.ndarray:
    """Return (terms, degree) places in the table of factors: those of each term, filled up with place 0, the 1."""
    rows = []
    for total in range(degree + 1):
        for combination in itertools.combinations_with_replacement(range(n_labels), total):
            places = [1 + (combination.count(label) - 1) * n_labels + label for label in dict.fromkeys(combination)]
            rows.append(places + [0] * (degree - len(places)))
    return np.array(rows, np.int32)
