"""Emulated spectra over the whole label space, with which to search for starting values."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from scipy.fft import irfft, rfft

from starpayne.emulators import Emulator
from starpayne.fitting.broadening import rotation_transfer
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.instrument import LogGrid, fast_length
from starpayne.fitting.resolution import FWHM
from starpayne.wavelengths import SPEED_OF_LIGHT

FEW = 16
"""Templates that are tried at every velocity."""


@dataclass(frozen=True, eq=False)
class Templates:
    """Emulated spectra to search with: the same for all stars of one set-up.

    Args:
        grid: their wavelengths.
        cube: (n, n_free) where they stand in the unit cube of the free labels.
        depth: (n, grid.size) float32, flux − 1.
    """

    grid: LogGrid
    cube: np.ndarray
    depth: np.ndarray

    @classmethod
    def of(cls, emulator: Emulator, grid: LogGrid, free: FreeLabels, n: int, seed: int) -> Templates:
        """Emulate up to n templates, spread over the free labels."""
        cube = free.design(n, seed)
        wavelength = np.clip(grid.wavelength, emulator.domain.low, emulator.domain.high)
        flux = emulator.predict(free.from_cube(cube), wavelength, extrapolate=True).flux
        return cls(grid, cube, flux - 1)

    def most_different(self, n: int) -> np.ndarray:
        """Return the places of n templates, each as far as can be from those before it; the first is the most
        typical."""
        depth = self.depth[:, :: max(1, self.grid.size // 500)]
        square = np.sum(depth**2, axis=1)
        distance = np.sqrt(np.maximum(square[:, None] + square - 2 * depth @ depth.T, 0.0))
        chosen = [int(np.argmin(distance.sum(axis=1)))]
        while len(chosen) < min(n, len(depth)):
            chosen.append(int(np.argmax(distance[chosen].min(axis=0))))
        return np.array(chosen)


class Views(eqx.Module):
    """Templates as one kind of observation sees them: models, each of a template and a rotation, in this order.

    Args:
        flux, square: (models, size) at the step of the bins, and its square.
        few, few_square: (m, frequencies) conjugate Fourier transforms of some of them, in a frame with more room.
        rotations: v sin i in km/s; ``total`` is the length of the frame.
    """

    flux: Float[Array, "models size"]
    square: Float[Array, "models size"]
    few: Complex[Array, "few frequencies"]
    few_square: Complex[Array, "few frequencies"]
    rotations: tuple[float, ...] = eqx.field(static=True)
    total: int = eqx.field(static=True)

    @classmethod
    def of(
        cls, templates: Templates, rotations: tuple[float, ...], fwhm: float, model_resolution: float | None,
        limb_darkening: float, stride: int, room: int,
    ) -> Views:  # fmt: skip
        """Look at templates through an instrument.

        Args:
            rotations: v sin i to try, km/s.
            fwhm: of the line-spread function, km/s; ``model_resolution`` is that of the templates.
            stride: points of the templates' grid in a bin.
            room: bins of a frame beside those of the templates.
        """
        step = stride * templates.grid.step
        seen = [
            1 + smoothed(templates, rotation, fwhm, model_resolution, step, limb_darkening) for rotation in rotations
        ]
        flux = np.stack([each[:, ::stride] for each in seen], axis=1, dtype=np.float32)
        size = flux.shape[-1]
        total = fast_length(size + room)
        # Every other rotation: to find the velocity, lines need not be as broad as the star's.
        few = flux[templates.most_different(FEW), ::2].reshape(-1, size) * inside(size)
        transformed = [np.conj(np.asarray(rfft(values, total, axis=-1))) for values in (few, few**2)]
        flux = flux.reshape(-1, size)
        arrays = [jnp.asarray(array) for array in (flux, flux**2, *transformed)]
        return cls(*arrays, rotations=rotations, total=total)


def inside(size: int) -> np.ndarray:
    """Return 1 where points of models are compared: the outermost are left out."""
    out = np.zeros(size, np.float32)
    out[1:-1] = 1.0
    return out


def smoothed(
    templates: Templates, rotation: float, fwhm: float, model_resolution: float | None, step: float, limb: float
) -> np.ndarray:
    """Return depths on the model grid, rotated, at the instrument's resolution and averaged over coarse bins."""
    grid = templates.grid
    pad = 64 + int(200 / grid.velocity_step)
    total = fast_length(grid.size + 2 * pad)
    padded = np.concatenate(
        [templates.depth, np.repeat(templates.depth[:, -1:], pad, 1),
         np.repeat(templates.depth[:, :1], total - grid.size - pad, 1)], axis=1,
    )  # fmt: skip
    k = 2 * np.pi * np.fft.rfftfreq(total, grid.velocity_step)
    own = 0.0 if model_resolution is None else SPEED_OF_LIGHT / model_resolution
    sigma2 = max(fwhm**2 - own**2, 0.0) / FWHM**2
    rotate = np.asarray(rotation_transfer(jnp.asarray((k * rotation) ** 2, jnp.float32), limb))
    transfer = rotate * np.exp(-0.5 * sigma2 * k**2) * np.sinc(k * step * SPEED_OF_LIGHT / (2 * np.pi))
    return np.asarray(irfft(np.asarray(rfft(padded, axis=1)) * transfer, total, axis=1))[:, : grid.size]
