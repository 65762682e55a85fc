"""An emulator of one grid with a correction to another: the mean of a Gaussian process over their difference.

What another code or line list changes is large where lines are strong and unsaturated and changes smoothly with the
labels, so that few spectra say much about it (Kennedy & O'Hagan 2000, Biometrika 87, 1, call the difference of a cheap
and a dear code its discrepancy). The base model is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from starpayne.emulators.base import BoundEmulator, Emulator, HostArray
from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.emulators.domain import SpectralDomain
from starpayne.emulators.gaussian_process import KERNELS
from starpayne.emulators.registry import PLAIN
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_wavelength, lagrange_weights

KERNEL = "matern52"

FLOOR = 1e-3
"""The least f (1 - f): where the base sees no line, the other code may have one. From 1e-4 to 1e-2 the error changes by
3 %."""


class Corrected(Emulator):
    """A base emulator, and ``center + width * strength * (kernel @ amplitudes)`` added to its outputs.

    Args:
        base: the emulator that is corrected.
        points: (spectra, labels) of the spectra that the correction was made from, in :func:`smooth_coordinates`.
        lengths: (labels,) length scale of each label in those coordinates.
        amplitudes: (channels, spectra, pixels), what each spectrum contributes at each pixel.
        center, width: (channels, 1), zero and the size of the difference in units of its expected strength.
        wavelength: the pixels, Å, in ``domain.medium``.
    """

    base: Emulator
    points: Float[Array, "spectra labels"]
    lengths: Float[Array, " labels"]
    amplitudes: Float[Array, "channels spectra pixels"]
    center: Float[Array, "channels 1"]
    width: Float[Array, "channels 1"]
    space: LabelSpace = eqx.field(static=True)
    domain: SpectralDomain = eqx.field(static=True)
    channels: tuple[str, ...] = eqx.field(static=True)
    wavelength: HostArray = eqx.field(static=True)
    architecture: ClassVar[str] = "corrected"
    # As of the least exact base.
    rounding: ClassVar[float] = max(cls.rounding for cls in PLAIN.values())

    @classmethod
    def initialise(
        cls, base: Emulator, space: LabelSpace, domain: SpectralDomain, wavelength: np.ndarray, spectra: int
    ) -> Corrected:
        """Return the base with a correction of zero from so many spectra."""
        if isinstance(base, Corrected):
            raise RecipeError("a corrected model cannot be corrected again; correct its base model")
        if base.space.names != space.names:
            raise RecipeError(f"the base has the labels {', '.join(base.space.names)}, not {', '.join(space.names)}")
        if spectra < 1:
            raise RecipeError(f"a correction needs spectra, got {spectra}")
        wavelength = check_wavelength(wavelength)
        return cls(
            base=base, points=jnp.zeros((spectra, len(space))), lengths=jnp.ones(len(space)),
            amplitudes=jnp.zeros((len(base.channels), spectra, len(wavelength))),
            center=jnp.zeros((len(base.channels), 1)), width=jnp.ones((len(base.channels), 1)), space=space,
            domain=domain, channels=base.channels, wavelength=HostArray(wavelength),
        )  # fmt: skip

    @classmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> Corrected:
        stated = config["base"]
        if stated["architecture"] not in PLAIN:
            raise RecipeError(f"the base of a correction is {stated['architecture']!r}; it may be {', '.join(PLAIN)}")
        base = PLAIN[stated["architecture"]].skeleton(
            LabelSpace.from_dict(stated["label_space"]), SpectralDomain.from_dict(stated["domain"]), channels,
            stated["config"],
        )  # fmt: skip
        return cls.initialise(base, space, domain, np.asarray(config["wavelength"], np.float64), config["spectra"])

    @property
    def config(self) -> dict[str, Any]:
        base = self.base
        return {
            "base": {
                "architecture": base.architecture,
                "config": base.config,
                "label_space": base.space.to_dict(),
                "domain": asdict(base.domain),
            },
            "spectra": len(self.points),
            "wavelength": self.wavelength.values.tolist(),
        }

    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        return {}

    def with_products(self, precision: str) -> Corrected:
        base = self.base.with_products(precision)
        return self if base is self.base else replace(self, base=base)

    @property
    def native_wavelength(self) -> np.ndarray:
        return self.wavelength.values

    def bind(self, wavelength: np.ndarray) -> BoundCorrected:
        own, amplitudes = self.wavelength.values, self.amplitudes
        if not np.array_equal(wavelength, own):
            indices, weights = lagrange_weights(own, wavelength)
            amplitudes = jnp.sum(amplitudes[..., indices] * jnp.asarray(weights, jnp.float32), axis=-1)
        return BoundCorrected(
            emulator=self, wavelength=HostArray(wavelength), inner=self.base.bind(wavelength), amplitudes=amplitudes
        )


class BoundCorrected(BoundEmulator):
    """A base emulator with its correction, on given wavelengths."""

    emulator: Corrected
    wavelength: HostArray = eqx.field(static=True)
    inner: BoundEmulator
    amplitudes: Float[Array, "channels spectra wavelengths"]

    def outputs(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        return self._corrected(self.inner.outputs(labels), labels)

    def batch(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        return self._corrected(self.inner.batch(labels), labels)

    def values(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        return self._corrected(self.inner.values(labels), labels)

    def whole(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        return self._corrected(self.inner.whole(labels), labels)

    def _corrected(
        self, outputs: Float[Array, "*n channels wavelengths"], labels: Float[Array, "*n labels"]
    ) -> Float[Array, "*n channels wavelengths"]:
        own = self.emulator
        cube = smooth_coordinates(own.space, jnp.asarray(labels, jnp.float32))
        squared = jnp.sum(((cube[..., None, :] - own.points) / own.lengths) ** 2, axis=-1)
        kernel = KERNELS[KERNEL](squared)
        return jnp.stack(
            [
                outputs[..., i, :]
                + own.center[i]
                + own.width[i] * strength(outputs[..., i, :], channel, jnp) * (kernel @ self.amplitudes[i])
                for i, channel in enumerate(own.channels)
            ],
            axis=-2,
        )

    def at(self, emulator: Emulator, columns: Int[Array, " subset"] | None = None) -> BoundCorrected:
        raise RecipeError("a corrected model is solved for, not trained; fine-tune its base model")

    @property
    def floats_per_spectrum(self) -> int:
        channels, spectra, wavelengths = self.amplitudes.shape
        return self.inner.floats_per_spectrum + 3 * channels * wavelengths + spectra * (2 + len(self.emulator.space))


def strength(values: Any, channel: str, numpy: Any = np) -> Any:
    """Return how much of a difference a channel of a base model lets expect at each wavelength, in units of its own.

    The root of f (1 - f) of the normalised flux f, which is largest where a line is strong and not saturated; smooth,
    and not small where a network leaves the range of fluxes. Of the continuum, 1.

    Args:
        values: (..., wavelengths), of the base model.
        channel: "flux" or "log10_continuum".
        numpy: the module to compute with, NumPy or ``jax.numpy``.
    """
    if channel != "flux":
        return numpy.ones_like(values)
    return ((values * (1 - values)) ** 2 + FLOOR**2) ** 0.25
