"""How far an emulator is from the spectra it has never seen: mean errors, percentiles, and where it is worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from starpayne.bundle import Model
from starpayne.emulators.base import predict_in_chunks
from starpayne.evaluation.relative import continuum_error, disc_flux_error
from starpayne.evaluation.rows import held_out
from starpayne.grid import Grid, normalised_intensity

PERCENTILES = (50.0, 68.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Evaluation:
    """Residuals of an emulator, predicted minus true normalised flux (or intensity), on held-out spectra.

    For an emulator of intensities n counts the (spectrum, viewing angle) pairs.

    Args:
        names: of the labels.
        labels: (n, n_labels) of the spectra, in the model's order.
        wavelength: (m,) Å, of the grid, in ``medium``.
        true, predicted: (n, m) float32.
        rows: (n,) rows of the grid, repeated for the viewing angles of a spectrum.
        n_outside: spectra (or pairs) left out because they are outside the model's label domain.
        split: what the rows are, in words.
        quantity: "flux" or "intensity", of ``true`` and ``predicted``.
        continuum_error: median, mean, 95th and 99th percentile and maximum of |predicted / true − 1| of the continuum,
            where model and grid have one.
        disc_flux_error: the same of the normalised flux 2 ∫ i μ dμ, where the model gives intensities.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    wavelength: np.ndarray
    medium: str
    true: np.ndarray
    predicted: np.ndarray
    rows: np.ndarray
    n_outside: int
    split: str
    quantity: str = "flux"
    continuum_error: Mapping[str, float] | None = None
    disc_flux_error: Mapping[str, float] | None = None

    @property
    def residual(self) -> np.ndarray:
        """(n, m) predicted minus true."""
        return self.predicted - self.true

    @property
    def mae(self) -> float:
        """Mean absolute error over spectra and wavelengths, the figure the field quotes."""
        return float(np.mean(np.abs(self.residual), dtype=np.float64))

    @property
    def rmse(self) -> float:
        return float(np.sqrt(np.mean(self.residual.astype(np.float64) ** 2)))

    @property
    def per_spectrum(self) -> np.ndarray:
        """(n,) mean absolute error of each spectrum."""
        return np.mean(np.abs(self.residual), axis=1)

    @property
    def per_wavelength(self) -> np.ndarray:
        """(m,) mean absolute error at each wavelength."""
        return np.mean(np.abs(self.residual), axis=0)

    def worst(self, n: int = 5) -> list[dict[str, Any]]:
        """Return the n worst spectra: row, MAE and labels."""
        order = np.argsort(self.per_spectrum)[::-1][:n]
        return [
            {
                "row": int(self.rows[i]),
                "mae": float(self.per_spectrum[i]),
                "labels": dict(zip(self.names, map(float, self.labels[i]), strict=True)),
            }
            for i in order
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data: mae, rmse, n_spectra, percentiles, worst spectra, relative errors where known."""

        def percentiles(values: np.ndarray) -> dict[str, float]:
            return {f"{q:g}": float(v) for q, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}

        relative = {"disc_flux_error": self.disc_flux_error, "continuum_error": self.continuum_error}
        return {
            "quantity": self.quantity,
            "mae": self.mae,
            "rmse": self.rmse,
            **{name: dict(values) for name, values in relative.items() if values is not None},
            "n_spectra": len(np.unique(self.rows)),
            "n_wavelengths": len(self.wavelength),
            "n_outside_domain": self.n_outside,
            "split": self.split,
            "percentiles": {
                "absolute_residual": percentiles(np.abs(self.residual)),
                "mae_per_spectrum": percentiles(self.per_spectrum),
                "mae_per_wavelength": percentiles(self.per_wavelength),
            },
            "worst": self.worst(),
        }


def evaluate(model: Model, grid: Grid, rows: Sequence[int] | None = None) -> Evaluation:
    """Compare a model with spectra of a grid.

    By default these are the test spectra of the split that is stored in the model, if it was trained on this grid, or
    else the grid's own test spectra (all of them, if it names none). Rows that were never synthesized are passed
    over, and rows outside the model's label domain are left out and counted.

    Args:
        model: a trained model.
        grid: a grid with the same label names (but for ``mu``, which its viewing angles give); its wavelengths are
            converted to the model's medium.
        rows: rows to take instead.

    Raises:
        GridError: the grid's labels are not the model's, it lacks the intensities, or no row is left.
        WavelengthError: the grid's wavelengths leave the model's range.
    """
    held = held_out(model, grid, rows)
    emulator = model.emulator
    wavelength = emulator.domain.prepare(grid.wavelength, grid.medium)
    outputs = predict_in_chunks(emulator, held.labels, wavelength)
    disc = None
    if held.angles is None:
        true = grid.flux(held.rows)
    else:
        stars, first, star = np.unique(held.rows, return_index=True, return_inverse=True)
        true = normalised_intensity(grid, stars).reshape(len(stars), len(grid.mu), -1)[star, held.angles]
        disc = disc_flux_error(emulator, held.labels[first, :-1], wavelength, grid.flux(stars))
    return Evaluation(
        names=emulator.space.names,
        labels=held.labels,
        wavelength=grid.wavelength,
        medium=grid.medium,
        true=true,
        predicted=outputs[:, 0],
        rows=held.rows,
        n_outside=held.n_outside,
        split=held.split,
        quantity=emulator.domain.quantity,
        continuum_error=continuum_error(emulator, outputs, grid, held.rows),
        disc_flux_error=disc,
    )
