"""Synthesis: from stellar labels to spectra, with a radiative-transfer engine run over a design of labels.

Example:
    >>> from starpayne.synthesis import Design, run
    >>> design = Design.shipped("demo")
    >>> design.space.names
    ('teff', 'logg', 'feh', 'vmic', 'mg_fe')

    ``grid = run(design, "demo.zarr", workers=2)`` then synthesizes it.
"""

from starpayne.synthesis.atmospheres import ModelAtmosphere, atmosnet
from starpayne.synthesis.design import Design, shipped_designs
from starpayne.synthesis.engine import Engine, Synthesis, engine, engine_names, register
from starpayne.synthesis.farm import run
from starpayne.synthesis.linelists import LineList, gaia_eso
from starpayne.synthesis.modelfiles import read_model
from starpayne.synthesis.settings import PySMESettings, TurbospectrumSettings
from starpayne.synthesis.vald import read_vald
from starpayne.synthesis.watchdog import ChildEngine, SynthesisFailure

__all__ = [
    "ChildEngine",
    "Design",
    "Engine",
    "LineList",
    "ModelAtmosphere",
    "PySMESettings",
    "Synthesis",
    "SynthesisFailure",
    "TurbospectrumSettings",
    "atmosnet",
    "engine",
    "engine_names",
    "gaia_eso",
    "read_model",
    "read_vald",
    "register",
    "run",
    "shipped_designs",
]
