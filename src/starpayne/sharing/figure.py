"""The figure beside a model card."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from starpayne.bundle import Model
from starpayne.emulators import QUANTITIES
from starpayne.plots import COLOURS, GREY, new_figure


def error_figure(model: Model) -> bytes | None:
    """Return a PNG of how large the residuals of a model typically are at each wavelength; None if it has none stored.

    The size is the square root of the diagonal of the covariance of its validation residuals.
    """
    if model.residuals is None:
        return None
    residuals, domain = model.residuals, model.emulator.domain
    size = residuals.sigma
    figure, axes = new_figure(figsize=(8, 3))
    axis = axes[0, 0]
    axis.plot(residuals.wavelength, size, color=COLOURS[0], lw=0.7, label="1 σ of the residuals")
    typical = float(np.sqrt(np.mean(size**2)))
    axis.axhline(typical, color=GREY, lw=0.9, ls="--", label=f"over all wavelengths: {typical:.5f}")
    axis.set_xlim(residuals.wavelength[0], residuals.wavelength[-1])
    axis.set_ylim(0, 1.25 * float(size.max()) or 1.0)
    axis.set_xlabel(f"wavelength in {domain.medium} (Å)")
    unit = "\n(1 = continuum)" if domain.quantity == "flux" else ""
    axis.set_ylabel(f"error of the\n{QUANTITIES[domain.quantity]}{unit}")
    axis.legend(fontsize=8, loc="upper right", ncols=2)
    file = BytesIO()
    # The name and version of the library would make the same figure another file elsewhere.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
