"""What a visitor can take home: the spectrum as CSV or FITS, and the figure."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from starpayne import plots
from starpayne.explorer.dials import title_of
from starpayne.explorer.observed import Observed, compare
from starpayne.explorer.predictor import SCALE, Predictor
from starpayne.explorer.state import State
from starpayne.prediction_files import write_spectrum


def spectrum_file(predictor: Predictor, state: State, suffix: str) -> BytesIO:
    """Return the spectrum that is shown, with all dials in its header.

    Args:
        suffix: ``.csv`` or ``.fits``.
    """
    with TemporaryDirectory(prefix="starpayne-download-") as folder:
        path = Path(folder) / f"spectrum{suffix}"
        write_spectrum(path, predictor.prediction(state), dict(state.values))
        return BytesIO(path.read_bytes())


def figure_file(predictor: Predictor, state: State, observed: Observed | None) -> BytesIO:
    """Return a PNG of what is shown: spectrum, residuals where there is an observed one, derivative."""
    figure, axes = plots.new_figure(3 if observed else 2, 1, figsize=(9, 7 if observed else 5))
    wavelength, depth = predictor.wavelength(state), predictor.depth(state)
    top, bottom = axes[0, 0], axes[-1, 0]
    if observed is not None:
        seen = compare(predictor, state, observed, depth)
        top.plot(observed.wavelength, seen.flux, color="black", lw=0.7, label="observed")
        axes[1, 0].plot(observed.wavelength, seen.residual, color=plots.COLOURS[1], lw=0.7)
        axes[1, 0].axhline(0, color=plots.GREY, lw=0.6)
        axes[1, 0].set_ylabel("observed\n− model")
    top.plot(wavelength, predictor.flux(state, depth), color=plots.COLOURS[0], lw=1.0, label="model")
    top.set_ylabel("normalised flux")
    top.legend(fontsize=8, loc="lower right")
    words = [f"{title_of(n)} = {predictor.panel[n].text(v)} {predictor.panel[n].unit}".strip() for n, v in state.values]
    lines = [" · ".join(words[i : i + 7]) for i in range(0, len(words), 7)]
    top.set_title("\n".join(lines), fontsize=6)
    bottom.plot(wavelength, predictor.derivative(state, state.derivative), color=plots.COLOURS[2], lw=0.9)
    bottom.set_ylabel("\n".join(derivative_name(predictor, state.derivative)))
    bottom.set_xlabel(f"wavelength (Å, {predictor.model.emulator.domain.medium})")
    for axis in axes[:, 0]:
        axis.set_xlim(wavelength[0], wavelength[-1])
    data = BytesIO()
    figure.savefig(data, format="png")
    data.seek(0)
    return data


def derivative_name(predictor: Predictor, name: str) -> tuple[str, str]:
    """Return what the derivative by a label is, and its unit: ``∂flux/∂[Mg/Fe]``, ``per dex``."""
    unit, scale = predictor.panel[name].unit, SCALE.get(name)
    per = f"{scale:g} {unit}" if scale else unit or "1"
    return f"∂flux/∂{title_of(name)}", f"per {per}"
