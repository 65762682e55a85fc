"""The forward model: labels, velocity and broadening → normalised flux on the observed pixels, as one pure
function."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from starpayne.emulators import BoundEmulator, Emulator
from starpayne.errors import SpectrumError
from starpayne.fitting.broadening import LIMB_DARKENING, Broadening
from starpayne.fitting.instrument import LogGrid, pixel_bands
from starpayne.fitting.pixels import PixelMatrix
from starpayne.fitting.resolution import Resolution, ResolutionCurve, check_resolution, uniform_width
from starpayne.wavelengths import SPEED_OF_LIGHT, check_wavelength, convert_medium

BLOCK = 512
"""Model grids are cut at multiples of this many points, so that stars of one set-up share one compiled function."""


class ForwardModel(eqx.Module):
    """A model spectrum on the pixels of one observation.

    Pure and differentiable in every argument; made once per star with :meth:`on`.

    Args:
        bound: the emulator on its log-λ grid.
        broadening: rotation, Gaussian broadening and residual shift.
        pixels: instrument, pixels and coarse velocity.
        velocity: the coarse velocity, as c·ln(λ_observed/λ_rest) in km/s.

    Example:
        ``forward, usable = ForwardModel.on(emulator, wavelength, resolution=47000, medium="air")``
        ``flux = forward(labels, rv=12.3, vsini=4.0)``
    """

    bound: BoundEmulator
    broadening: Broadening
    pixels: PixelMatrix
    velocity: Float[Array, ""]

    @classmethod
    def on(
        cls,
        emulator: Emulator,
        wavelength: ArrayLike,
        resolution: Resolution,
        *,
        medium: str | None = None,
        velocity: float = 0.0,
        velocity_range: float = 20.0,
        vsini_max: float = 50.0,
        broadening_max: float = 0.0,
        limb_darkening: float = LIMB_DARKENING,
    ) -> tuple[ForwardModel, np.ndarray]:
        """Prepare the forward model of an observation, on the host.

        Args:
            emulator: the emulator.
            wavelength: (n,) observed, Å, increasing.
            resolution: λ/FWHM (one, or one per pixel), or a table.
            medium: "air" or "vacuum"; by default the emulator's own.
            velocity: about the radial velocity, km/s; ``velocity_range`` on either side of it stays exact.
            vsini_max, broadening_max: the largest widths that will be asked for, km/s.
            limb_darkening: linear coefficient of the rotation profile.

        Returns:
            the model, and (n,) bool: False where a pixel or its kernel leaves the emulator's range (the model is 1
            there).

        Raises:
            SpectrumError: for a resolution that the model cannot give, a spectrum that does not overlap it, or a
                model of intensities.
        """
        refuse_intensities(emulator)
        domain = emulator.domain
        wavelength = check_wavelength(wavelength)
        own = convert_medium(wavelength, medium, domain.medium) if medium else wavelength
        if isinstance(resolution, ResolutionCurve):
            resolution = resolution(wavelength)
        check_resolution(resolution, domain.sampling, domain.resolution)
        margin = velocity_range + max(vsini_max, 2.5 * broadening_max)
        reach = margin + abs(velocity)
        bound, grid = bind(emulator, own[0], own[-1], reach)
        uniform = uniform_width(resolution, domain.resolution)
        bands, usable = pixel_bands(
            grid, own, resolution, velocity=velocity, model_resolution=domain.resolution, margin=margin,
            pixels_alone=uniform is not None,
        )  # fmt: skip
        if not usable.any():
            raise SpectrumError(no_overlap(own, emulator))
        reach = kernel_reach(velocity_range, vsini_max, broadening_max)
        broadening = Broadening.on(grid, reach, limb_darkening, uniform or 0.0)
        return cls(bound, broadening, bands.matrix(grid.size), jnp.asarray(log_velocity(velocity), jnp.float32)), usable

    def observe(
        self,
        depth: Float[Array, "*batch grid"],
        shift: Float[Array, ""] | float,
        vsini2: Float[Array, ""] | float,
        sigma2: Float[Array, ""] | float,
    ) -> Float[Array, "*batch pixels"]:
        """Broaden, shift (km/s relative to ``velocity``) and observe line depths; linear in them."""
        return self.pixels(self.broadening(depth, shift, vsini2, sigma2))

    def __call__(
        self,
        labels: Float[Array, " labels"],
        rv: Float[Array, ""] | float = 0.0,
        vsini: Float[Array, ""] | float = 0.0,
        broadening: Float[Array, ""] | float = 0.0,
    ) -> Float[Array, " pixels"]:
        """Return the normalised flux on the observed pixels.

        Args:
            labels: physical labels.
            rv: radial velocity, km/s.
            vsini: projected rotation velocity, km/s.
            broadening: standard deviation of a Gaussian (macroturbulence), km/s.
        """
        shift = SPEED_OF_LIGHT * jnp.arctanh(jnp.asarray(rv) / SPEED_OF_LIGHT) - self.velocity
        square = jnp.asarray(vsini) ** 2, jnp.asarray(broadening) ** 2
        return 1 + self.observe(self.bound(labels) - 1, shift, *square)


def refuse_intensities(emulator: Emulator) -> None:
    """Raise SpectrumError for an emulator that has no disc-integrated flux."""
    if emulator.domain.quantity != "flux":
        raise SpectrumError(
            "this model gives intensities at one viewing angle, not the flux of a star's whole disc, so it cannot be "
            'fitted; train one on fluxes (quantity = "flux" in the recipe), or integrate with emulators.disc_flux'
        )


def log_velocity(velocity: float) -> float:
    """Return c·ln(λ_observed/λ_rest) in km/s of a radial velocity, in which velocities add."""
    return SPEED_OF_LIGHT * float(np.arctanh(velocity / SPEED_OF_LIGHT))


def radial_velocity(log_velocity: float) -> float:
    """Invert :func:`log_velocity`."""
    return SPEED_OF_LIGHT * float(np.tanh(log_velocity / SPEED_OF_LIGHT))


def kernel_reach(velocity_range: float, vsini_max: float, broadening_max: float) -> float:
    """Return how far, in km/s, the kernels of these widths act at all."""
    return velocity_range + vsini_max + 6 * broadening_max


def bind(
    emulator: Emulator, low: float, high: float, reach: float,
    once: Callable[[Hashable, Callable[[], Any]], Any] = lambda key, make: make(),
) -> tuple[BoundEmulator, LogGrid]:  # fmt: skip
    """Bind an emulator to a grid of equal steps in ln λ around observed wavelengths low to high (its medium).

    Args:
        reach: km/s to keep on either side for velocities and kernels; the grid ends where the emulator does.
        once: given a key and how to make what it names, returns that; so that the same is not made twice.
    """
    domain = emulator.domain
    native = np.log(emulator.native_wavelength)
    step = (native[-1] - native[0]) / (len(native) - 1)
    uniform = native[0] + step * np.arange(len(native))
    is_uniform = bool(np.max(np.abs(native - uniform)) < 1e-3 * step)
    if is_uniform:
        whole = LogGrid(float(native[0]), float(step), len(native))
    else:
        step = 1.0 / domain.sampling
        size = int(np.floor(np.log(domain.high / domain.low) / step * (1 + 1e-12))) + 1
        whole = LogGrid(float(np.log(domain.low)), step, size)
    extra = reach / SPEED_OF_LIGHT + 0.001
    begin = int((np.log(low) - extra - whole.start) // (BLOCK * whole.step)) * BLOCK
    end = int(-((whole.start - np.log(high) - extra) // (BLOCK * whole.step))) * BLOCK
    begin, end = max(0, begin), min(whole.size, end)
    if end - begin < 4:
        raise SpectrumError(no_overlap(np.array([low, high]), emulator))
    if end - begin > whole.size // 2:
        wavelength, grid = emulator.native_wavelength if is_uniform else whole.wavelength, whole
    else:
        grid = LogGrid(whole.start + begin * whole.step, whole.step, end - begin)
        wavelength = grid.wavelength
    return once(("bound", grid), lambda: emulator.on(np.clip(wavelength, domain.low, domain.high))), grid


def no_overlap(wavelength: np.ndarray, emulator: Emulator) -> str:
    """Return the sentence that prints both ranges."""
    domain = emulator.domain
    return (
        f"the spectrum, {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å in {domain.medium}, does not overlap the model, "
        f"{domain.low:.2f} to {domain.high:.2f} Å, by enough to fit: check the unit of the wavelengths (--unit), "
        "or use a model of that range"
    )
