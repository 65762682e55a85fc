"""A Gaussian process over the labels, one length scale per label, whose mean is the spectrum.

Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, eq. 2.25. All pixels share one kernel, so that
prediction is a product of the kernel to the training spectra with one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from starpayne.emulators.base import HostArray, SpectralDomain
from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.emulators.fixed_grid import FixedGridEmulator
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_wavelength


class GaussianProcess(FixedGridEmulator):
    """The mean of a Gaussian process, in principal components of the training spectra.

    Args:
        points: (spectra, labels) training labels in :func:`smooth_coordinates`.
        lengths: (labels,) length scale of each label in those coordinates.
        amplitudes: (spectra, components), what each training spectrum contributes to each component.
        components: (components, channels · pixels).
        center, width: (channels, pixels); the output is ``center + width * (kernel @ amplitudes @ components)``.
        kernel: "matern52" or "squared_exponential".
        wavelength: the pixels, Å, in ``domain.medium``.
    """

    points: Float[Array, "spectra labels"]
    lengths: Float[Array, " labels"]
    amplitudes: Float[Array, "spectra components"]
    components: Float[Array, "components outputs"]
    center: Float[Array, "channels pixels"]
    width: Float[Array, "channels pixels"]
    space: LabelSpace = eqx.field(static=True)
    domain: SpectralDomain = eqx.field(static=True)
    channels: tuple[str, ...] = eqx.field(static=True)
    wavelength: HostArray = eqx.field(static=True)
    kernel: str = eqx.field(static=True)
    architecture: ClassVar[str] = "gaussian_process"
    # Measured: 1.2e-4 at the centre of korg_flux, N = 800, against float64; another machine sums in another order.
    rounding: ClassVar[float] = 5e-4

    @classmethod
    def initialise(
        cls,
        space: LabelSpace,
        domain: SpectralDomain,
        channels: tuple[str, ...],
        wavelength: np.ndarray,
        *,
        kernel: str,
        spectra: int,
        components: int,
    ) -> GaussianProcess:
        """Return a process that predicts zero from so many training spectra and components."""
        if kernel not in KERNELS:
            raise RecipeError(f"kernel {kernel!r} is not known; choose one of {', '.join(KERNELS)}")
        if min(spectra, components) < 1:
            raise RecipeError(f"a Gaussian process needs spectra and components, got {spectra} and {components}")
        wavelength = check_wavelength(wavelength)
        shape = (len(channels), len(wavelength))
        return cls(
            points=jnp.zeros((spectra, len(space))), lengths=jnp.ones(len(space)),
            amplitudes=jnp.zeros((spectra, components)), components=jnp.zeros((components, shape[0] * shape[1])),
            center=jnp.zeros(shape), width=jnp.ones(shape), space=space, domain=domain, channels=tuple(channels),
            wavelength=HostArray(wavelength), kernel=kernel,
        )  # fmt: skip

    @classmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> GaussianProcess:
        return cls.initialise(
            space, domain, channels, np.asarray(config["wavelength"], np.float64),
            kernel=config["kernel"], spectra=config["spectra"], components=config["components"],
        )  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        spectra, components = self.amplitudes.shape
        return {
            "kernel": self.kernel,
            "spectra": spectra,
            "components": components,
            "wavelength": self.wavelength.values.tolist(),
        }

    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        return {}

    @property
    def floats_within(self) -> int:
        # The coordinate differences to all training spectra, if the compiler keeps them.
        return self.points.size + 2 * self.points.shape[0] + 3 * self.components.shape[1]

    def pixels(self, labels: Float[Array, " labels"]) -> Float[Array, "channels pixels"]:
        cube = smooth_coordinates(self.space, jnp.asarray(labels, jnp.float32))
        # Differences first: |x|² + |y|² − 2xy would lose in float32 what the large amplitudes need.
        squared = jnp.sum(((cube - self.points) / self.lengths) ** 2, axis=-1)
        values = sum_in_blocks(KERNELS[self.kernel](squared), self.amplitudes) @ self.components
        return self.center + self.width * values.reshape(self.center.shape)


def sum_in_blocks(
    kernel: Float[Array, " spectra"], amplitudes: Float[Array, "spectra components"]
) -> Float[Array, " components"]:
    """Return ``kernel @ amplitudes``, summed in √n blocks of √n spectra.

    The amplitudes are large and cancel, so that one long sum in float32 errs four times as much as the kernel's own
    rounding. Two short ones in a row halve the error of the flux (mean over ``mgb_reference``, N = 1,000: 8e-6).
    """
    n = len(kernel)
    size = math.isqrt(n - 1) + 1
    padding = -n % size
    kernel = jnp.concatenate([kernel, jnp.zeros(padding)]).reshape(-1, 1, size)
    blocks = jnp.pad(amplitudes, ((0, padding), (0, 0))).reshape(len(kernel), size, -1)
    return jnp.sum(kernel @ blocks, axis=(0, 1))


@jax.custom_jvp
def _decay(squared: Array) -> Array:
    """exp(-sqrt(5 s)): needed for the second derivative of the kernel only; its own slope is infinite at s = 0."""
    return jnp.exp(-jnp.sqrt(5 * squared))


@_decay.defjvp
def _decay_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (squared,), (change,) = primals, tangents
    root = jnp.sqrt(jnp.maximum(5 * squared, 1e-12))
    value = jnp.exp(-root)
    return value, -2.5 * value / root * change


@jax.custom_jvp
def _matern32(squared: Array) -> Array:
    root = jnp.sqrt(5 * squared)
    return (1 + root) * jnp.exp(-root)


@_matern32.defjvp
def _matern32_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (squared,), (change,) = primals, tangents
    return _matern32(squared), -2.5 * _decay(squared) * change


@jax.custom_jvp
def matern52(squared: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the Matérn-5/2 kernel of squared distances; its derivative is exact at distance zero too."""
    root = jnp.sqrt(5 * squared)
    return (1 + root + 5 / 3 * squared) * jnp.exp(-root)


@matern52.defjvp
def _matern52_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (squared,), (change,) = primals, tangents
    return matern52(squared), -5 / 6 * _matern32(squared) * change


def squared_exponential(squared: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the squared-exponential kernel of squared distances."""
    return jnp.exp(-0.5 * squared)


KERNELS = {"matern52": matern52, "squared_exponential": squared_exponential}
"""Kernels of unit variance, as functions of the squared distance in length scales."""
