"""An engine without physics that can be told to misbehave: hang in C code, crash, print, answer nonsense."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import LabelError
from starpayne.synthesis import Synthesis


class FakeEngine:
    """Settings: ``hang``, ``crash``, ``quit``, ``nan``, ``fail``: lists of teff; ``seconds``: per spectrum;
    ``log``: a file that gets a line per spectrum; ``program``: a file that gets the number of a program that hangs."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        if settings.get("broken"):
            raise RuntimeError("cannot be built")

    def _told_to(self, what: str, teff: float) -> bool:
        return any(abs(teff - t) < 1e-9 for t in self.settings.get(what, []))

    def synthesize(self, labels: dict[str, float], wavelength: np.ndarray) -> Synthesis:
        teff = labels["teff"]
        print("libraries print to stdout")
        if "log" in self.settings:
            with open(self.settings["log"], "a") as log:
                log.write(f"{teff}\n")
        if self._told_to("hang", teff):
            ctypes.CDLL(None).pause()  # blocks in C, where no Python signal handler runs
        if self._told_to("crash", teff):
            ctypes.string_at(0)
        if self._told_to("quit", teff):
            os.write(2, b"STOP in subroutine EOS\n")
            os._exit(3)
        if self._told_to("fail", teff):
            raise ArithmeticError("no convergence in layer 7")
        if "program" in self.settings:
            path = self.settings["program"]
            Path(os.environ["STARPAYNE_SCRATCH"], "left behind").touch()
            subprocess.run(["sh", "-c", f"echo $$ > {path}.draft; mv {path}.draft {path}; exec sleep 60"])
        time.sleep(self.settings.get("seconds", 0.0))
        depth = np.exp(-(((wavelength - 5005) / 0.1) ** 2)) * teff / 1e4
        flux = 1 - depth * np.cos(labels["logg"])
        if self._told_to("nan", teff):
            flux[3] = np.nan
        return Synthesis(flux, np.full_like(wavelength, teff**4))

    def provenance(self) -> dict[str, Any]:
        return {"engine": "fake", "physics": ["lte"], "settings": {"shift": self.settings.get("shift", 0)}}

    def check(self, space: Any) -> None:
        if "feh" in space.names:
            raise LabelError("unknown label 'feh'")


def make(settings: dict[str, Any]) -> FakeEngine:
    return FakeEngine(settings)
