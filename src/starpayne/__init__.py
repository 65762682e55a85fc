"""Stellar spectra from stellar labels, fast enough to fit with.

Synthesize a grid with a radiative-transfer code, train an emulator on it, evaluate it, fit observed stars.

Example:
    ``model = starpayne.load()``, the emulator that comes with the package, and
    ``starpayne.fit(starpayne.ObservedSpectrum.read("star.fits"), model, 47000)``
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starpayne.bundle import Model, save
    from starpayne.emulators import Emulator, Payne, TransformerPayne
    from starpayne.errors import StarpayneError
    from starpayne.evaluation import evaluate
    from starpayne.explorer import explore
    from starpayne.fitting import FitOptions, FitResult, LineMask, Posterior, fit, fit_many, learn_mask, sample
    from starpayne.grid import Grid
    from starpayne.importers import ImportOptions, import_any, import_folder
    from starpayne.inside import Sensitivity, sensitivity
    from starpayne.labels import Constraint, Label, LabelSpace
    from starpayne.sharing import load, pull, push
    from starpayne.spectra import ObservedSpectrum
    from starpayne.synthesis import Design
    from starpayne.synthesis import run as synthesize
    from starpayne.training import Recipe, TrainingData, train

# Resolved at first use: `import starpayne` costs nothing, and prediction never imports what only synthesis needs.
_HOME = {
    "Model": "bundle", "save": "bundle",
    "Emulator": "emulators", "Payne": "emulators", "TransformerPayne": "emulators",
    "StarpayneError": "errors", "evaluate": "evaluation", "explore": "explorer",
    "FitOptions": "fitting", "FitResult": "fitting", "fit": "fitting", "fit_many": "fitting",
    "LineMask": "fitting", "learn_mask": "fitting", "Posterior": "fitting", "sample": "fitting",
    "Grid": "grid", "import_any": "importers", "import_folder": "importers", "ImportOptions": "importers",
    "Sensitivity": "inside", "sensitivity": "inside",
    "Constraint": "labels", "Label": "labels", "LabelSpace": "labels",
    "load": "sharing", "pull": "sharing", "push": "sharing",
    "ObservedSpectrum": "spectra", "Design": "synthesis", "synthesize": "synthesis",
    "Recipe": "training", "TrainingData": "training", "train": "training",
}  # fmt: skip

__all__ = [
    "Constraint", "Design", "Emulator", "FitOptions", "FitResult", "Grid", "ImportOptions", "Label", "LabelSpace",
    "LineMask", "Model", "ObservedSpectrum", "Payne", "Posterior", "Recipe", "Sensitivity", "StarpayneError",
    "TrainingData", "TransformerPayne", "evaluate", "explore", "fit", "fit_many", "import_any", "import_folder",
    "learn_mask", "load", "pull", "push", "sample", "save", "sensitivity", "synthesize", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'starpayne' has no attribute {name!r}")
    module = import_module(f"starpayne.{_HOME[name]}")
    return getattr(module, "run" if name == "synthesize" else name)


def __dir__() -> list[str]:
    return sorted(__all__)
