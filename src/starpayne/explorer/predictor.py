"""From a state to spectra: one set of compiled functions for all sessions of a server."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from starpayne.bundle import Model
from starpayne.emulators import BoundEmulator, Prediction
from starpayne.emulators.flags import flags_for
from starpayne.explorer.dials import VSINI_MAX, Panel
from starpayne.explorer.state import State
from starpayne.fitting.broadening import Broadening
from starpayne.fitting.forward import bind, kernel_reach, refuse_intensities
from starpayne.fitting.instrument import LogGrid
from starpayne.fitting.resolution import half_width, uniform_width
from starpayne.wavelengths import SPEED_OF_LIGHT, doppler_factor

SHIFT = 20.0
"""km/s around a coarse velocity that are left to Fourier space, as in a fit."""

SCALE = {"teff": 100.0}
"""A derivative by one kelvin is too small to read: the change of a label by which it is shown, where that is not 1."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model made ready for drawing; what all sessions of a server share, and none changes.

    Args:
        model: the model.
        panel: its dials.
        bound, grid: its emulator on its own log-λ grid.
        broadening: rotation and instrument, with room for the widest that the dials allow.
    """

    model: Model
    panel: Panel
    bound: BoundEmulator
    grid: LogGrid
    broadening: Broadening

    @classmethod
    def of(cls, model: Model, resolution: float | None = None) -> Predictor:
        """Prepare a model.

        Raises:
            SpectrumError: for a model of intensities, or a resolution that it cannot give.
        """
        emulator = model.emulator
        refuse_intensities(emulator)
        panel = Panel.of(emulator, resolution)
        bound, grid = bind(emulator, emulator.domain.low, emulator.domain.high, 0.0)
        room = kernel_reach(SHIFT, VSINI_MAX, panel.widest_profile())
        return cls(model, panel, bound, grid, Broadening.on(grid, room))

    def warm(self) -> None:
        """Compile now what the first visitor would wait for."""
        state = State.start(self.panel)
        self.flux(state)
        self.derivative(state, state.derivative)

    def wavelength(self, state: State) -> np.ndarray:
        """Return (grid,) float64 Å at which the star's spectrum is seen, in the model's medium."""
        return self.grid.wavelength * doppler_factor(state["rv"])

    def reached(self, state: State) -> np.ndarray:
        """Return (grid,) bool: False at the ends, where the profile or the rotation would need what is beyond them."""
        x = self.grid.log_wavelength
        room = half_width(state["resolution"], self.model.emulator.domain.resolution)
        room += state["vsini"] / SPEED_OF_LIGHT
        return (x >= x[0] + room) & (x <= x[-1] - room)

    def widths(self, state: State) -> tuple[np.float32, np.float32]:
        """Return the squares, in km²/s², of v sin i and of the σ that the spectrograph adds to the model."""
        added = uniform_width(state["resolution"], self.model.emulator.domain.resolution) or 0.0
        return np.float32(state["vsini"] ** 2), np.float32(added**2)

    def depth(self, state: State) -> np.ndarray:
        """Return (grid,) float32 line depth (flux − 1) of the star at rest, neither rotating nor observed."""
        return np.asarray(_depth(self.bound, state.labels.astype(np.float32)))

    def flux(self, state: State, depth: np.ndarray | None = None) -> np.ndarray:
        """Return (grid,) float32 normalised flux through rotation and spectrograph; NaN where not ``reached``.

        Args:
            depth: of this state, where it is known.
        """
        depth = self.depth(state) if depth is None else depth
        seen = 1 + np.asarray(_broadened(self.broadening, depth, *self.widths(state)))
        return np.where(self.reached(state), seen, np.float32(np.nan))

    def derivative(self, state: State, name: str) -> np.ndarray:
        """Return (grid,) float32 ∂flux/∂label, seen as the flux is; per dex or km/s, of Teff per 100 K."""
        direction = np.zeros(len(self.panel.space), np.float32)
        direction[self.panel.space.names.index(name)] = SCALE.get(name, 1.0)
        slope = _slope(self.bound, state.labels.astype(np.float32), direction)
        seen = np.asarray(_broadened(self.broadening, slope, *self.widths(state)))
        return np.where(self.reached(state), seen, np.float32(np.nan))

    def prediction(self, state: State) -> Prediction:
        """Return what is drawn, for a file: the pixels that are reached, with flags."""
        reached, domain = self.reached(state), self.model.emulator.domain
        return Prediction(
            wavelength=self.wavelength(state)[reached],
            flux=self.flux(state)[reached],
            medium=domain.medium,
            flags=(flags_for(self.panel.space, domain.physics, state.labels),),
        )


@eqx.filter_jit
def _depth(bound: BoundEmulator, labels: Float[Array | np.ndarray, " labels"]) -> Float[Array, " grid"]:
    return bound(jnp.asarray(labels)) - 1


@eqx.filter_jit
def _slope(
    bound: BoundEmulator,
    labels: Float[Array | np.ndarray, " labels"],
    direction: Float[Array | np.ndarray, " labels"],
) -> Float[Array, " grid"]:
    return jax.jvp(bound, (jnp.asarray(labels),), (jnp.asarray(direction),))[1]


@eqx.filter_jit
def _broadened(
    broadening: Broadening,
    depth: Float[Array | np.ndarray, " grid"],
    vsini2: np.float32 | Float[Array, ""],
    sigma2: np.float32 | Float[Array, ""],
) -> Float[Array, " grid"]:
    return broadening(jnp.asarray(depth), 0.0, jnp.asarray(vsini2), jnp.asarray(sigma2))
