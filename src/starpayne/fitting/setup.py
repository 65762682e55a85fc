"""What all stars of one run share: the model, the options, and what is dear to make anew for each star."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.emulators import BoundEmulator
from starpayne.errors import SpectrumError
from starpayne.fitting.broadening import Broadening
from starpayne.fitting.forward import bind, kernel_reach, refuse_intensities
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.instrument import LogGrid
from starpayne.fitting.options import FitOptions
from starpayne.fitting.pixels import AnyArray
from starpayne.fitting.search import Searcher
from starpayne.fitting.solver import Parameters
from starpayne.fitting.templates import Templates
from starpayne.labels import LabelSpace
from starpayne.wavelengths import lagrange_weights

T = TypeVar("T")


@dataclass(eq=False)
class Setup:
    """One run: a model, options, and a store of what its stars have in common.

    Raises:
        SpectrumError: for a model of intensities, or a line mask that was learned with another model.
        LabelError: for a label to fix, bound or constrain that is unknown or out of range.
    """

    model: Model
    options: FitOptions
    _kept: dict[Hashable, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        emulator, mask = self.model.emulator, self.options.line_mask
        refuse_intensities(emulator)
        emulator.space.refuse_unknown(self.options.label_priors, "labels with a prior")
        _ = self.parameters
        if mask is not None and (mask.zero_points or mask.depths) and mask.model != bundle.digest(emulator):
            raise SpectrumError(
                "the line depths and zero points of the line mask were learned with another model: learn them again, "
                "or use its windows alone (--windows-only; LineMask.without_depths)"
            )

    @cached_property
    def parameters(self) -> Parameters:
        options = self.options
        free = FreeLabels.of(self.model.emulator.space, options.fix, options.label_bounds)
        return Parameters(free, options.rv is None, options.vsini is None, options.broadening is None)

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]  # pyright: ignore[reportReturnType]

    def bound(self, low: float, high: float, reach: float) -> tuple[BoundEmulator, LogGrid]:
        """Return the emulator, its lines corrected where the line mask says how, on its grid around observed
        wavelengths; see :func:`starpayne.fitting.forward.bind`."""
        emulator, mask = self.model.emulator, self.options.line_mask
        bound, grid = bind(emulator, low, high, reach, self._once)
        if mask is None or mask.depths is None:
            return bound, grid
        depths = mask.depths
        return self._once(("corrected", grid), lambda: depths.on(bound, grid, emulator.domain.medium)), grid

    def broadening(self, grid: LogGrid, half_range: float, instrument: float = 0.0) -> Broadening:
        """Return the transfer function with room for the widest kernel that the options allow.

        The room does not follow the star, so that the arrays of all stars have one length and share one compiled
        function.

        Args:
            grid: the model's wavelengths.
            half_range: km/s that the velocity may be from the coarse one.
            instrument: σ in km/s of a line-spread function that is the same on all pixels.
        """
        options = self.options
        widest = options.vsini_limits[1], options.broadening_limits[1]
        reach = kernel_reach(10 * np.ceil(half_range / 10), *widest)

        def make() -> Broadening:
            broadening = Broadening.on(grid, reach, options.limb_darkening, instrument)
            return jax.tree.map(np.asarray, broadening)

        return self._once(("broadening", grid, reach, instrument), make)

    def searcher(self, grid: LogGrid) -> Searcher:
        """Return the templates of the search for starting values."""
        options = self.options

        def make() -> Searcher:
            emulator, free = self.model.emulator, self.parameters.labels
            return Searcher(Templates.of(emulator, grid, free, options.n_search, options.seed))

        return self._once(("search", grid), make)

    @property
    def has_error(self) -> bool:
        """Whether the emulator's error is known and wanted."""
        return self.model.residuals is not None and self.options.emulator_error

    def error_curves(self, grid: LogGrid, broadening: Broadening) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the modes of the emulator's error (k, frequencies) as ``broadening`` sees them, complex64, and what
        they leave (grid.size,) float32; None where there is no error."""
        residuals = self.model.residuals
        if residuals is None or not self.has_error:
            return None

        def make() -> tuple[np.ndarray, np.ndarray]:
            curves = np.concatenate([residuals.modes, residuals.noise[None]])
            curves = onto_grid(residuals.wavelength, curves, grid).astype(np.float32)
            return np.asarray(jax.jit(Broadening.spectrum)(broadening, curves[:-1])), curves[-1]

        return self._once(("error", grid, np.asarray(broadening.ramp).tobytes()), make)

    @cached_property
    def cube_to_labels(self) -> Callable[[np.ndarray], np.ndarray]:
        """The derivative (n_free, n_free) of the free labels by their coordinates, at a point (n_free,)."""
        table = self.parameters.labels.free
        if table is None:
            return lambda cube: np.zeros((0, 0))
        return lambda cube: np.asarray(_by_cube(table, np.asarray(cube, np.float32)), np.float64)


@partial(jax.jit, static_argnums=0)
def _by_cube(table: LabelSpace, cube: Float[AnyArray, " n_free"]) -> Float[Array, "n_free n_free"]:
    # Of the module, not of a set-up: whoever calls `fit` star by star would compile it for each. And by JAX in float32,
    # as the solver has it: where two ends of an interval meet, both must take the same side.
    return jax.jacfwd(table.from_cube)(cube)


def onto_grid(wavelength: np.ndarray, curves: np.ndarray, grid: LogGrid) -> np.ndarray:
    """Interpolate curves (k, m) given at wavelengths (m,) to the model grid (k, grid.size); constant beyond the
    ends."""
    target = np.clip(grid.wavelength, wavelength[0], wavelength[-1])
    indices, weights = lagrange_weights(np.asarray(wavelength, np.float64), target)
    return np.sum(np.asarray(curves, np.float64)[:, indices] * weights, axis=-1)
