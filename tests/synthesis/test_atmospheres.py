"""The model atmospheres are those of atmosnet's data file, read without running any code of it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from starpayne.errors import LabelError, SynthesisError
from starpayne.labels import Label, LabelSpace
from starpayne.synthesis import atmosnet
from starpayne.synthesis.atmospheres import check_atmosnet_space, optical_depth
from starpayne.synthesis.unpickle import load_arrays


@pytest.mark.synthesis
def test_sun_has_about_its_effective_temperature_at_optical_depth_two_thirds() -> None:
    sun = atmosnet(5772, 4.438)
    temperature = np.interp(np.log10(2 / 3), sun.log_tau_ross, sun.temperature)
    assert abs(temperature - 5772) < 250, "the grey atmosphere has exactly Teff; line blanketing warms it there"
    # Outputs are log10: with base e, which atmosnet's own code uses, the surface would have T = 35 K.
    assert 3500 < sun.temperature[0] < 4500
    assert np.all(np.diff(sun.column_mass) > 0)
    assert len(sun.temperature) == 80


@pytest.mark.synthesis
def test_gas_pressure_balances_gravity() -> None:
    sun = atmosnet(5772, 4.438)
    pressure = (sun.atom_density + sun.electron_density) * 1.380649e-16 * sun.temperature
    ratio = pressure / (10**4.438 * sun.column_mass)
    assert np.all(np.abs(ratio[20:70] - 1) < 0.05)


@pytest.mark.synthesis
def test_trimmed_layers_lie_between_the_optical_depths_and_every_second_starts_at_the_top() -> None:
    model = atmosnet(4000, 1.0, -2.5, 0.4)
    trimmed = model.trim()
    assert trimmed.log_tau_ross[0] > -6
    assert trimmed.log_tau_ross[-1] < 1.5
    assert len(trimmed.temperature) < 80
    every_second = model.trim(stride=2)
    np.testing.assert_array_equal(every_second.temperature, trimmed.temperature[::2])


@pytest.mark.synthesis
def test_atmosnet_itself_is_never_imported() -> None:
    code = "import sys; from starpayne.synthesis import atmosnet; atmosnet(5000, 3.0); print('atmosnet' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"teff": 9000, "logg": 4}, "teff = 9000 is outside the range of the atmosnet model atmospheres, 2500 to 8000"),
        ({"teff": 5000, "logg": 6}, "logg = 6 is outside the range of the atmosnet model atmospheres, -1 to 5.5"),
        ({"teff": 5000, "logg": 4, "feh": -5}, "feh = -5 is outside the range"),
        ({"teff": 5000, "logg": 4, "alpha_fe": 0.7}, "alpha_fe = 0.7 is outside the range"),
        ({"teff": float("nan"), "logg": 4}, "teff = nan is outside the range"),
    ],
)
def test_labels_beyond_the_models_are_refused_with_name_value_and_range(labels: dict, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        atmosnet(**labels)


def test_bounds_beyond_the_models_are_refused_before_anything_runs() -> None:
    space = LabelSpace((Label("teff", 4000, 9000), Label("logg", 1, 5)))
    with pytest.raises(LabelError, match="label teff: 4000 to 9000 K reaches beyond the atmosnet model atmospheres"):
        check_atmosnet_space(space)


def test_optical_depth_of_constant_opacity_is_opacity_times_column_mass() -> None:
    mass = np.array([0.1, 0.5, 2.0])
    np.testing.assert_allclose(optical_depth(mass, np.full(3, 2.0)), 2.0 * mass)


class _Evil:
    def __reduce__(self) -> tuple:
        return eval, ("__import__('os').mkdir('pwned')",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(_Evil()),
        pickle.dumps([np.zeros(3), _Evil()]),
        pickle.dumps(np.array([{"a": 1}], dtype=object)),
        # dill._dill._get_attr(_import_module("os"), "system")
        b"\x80\x04\x8c\ndill._dill\x8c\t_get_attr\x93\x8c\ndill._dill\x8c\x0e_import_module\x93\x8c\x02os\x85R"
        b"\x8c\x06system\x86R.",
        pickle.dumps(np.zeros(1000))[:500],
        b"not a pickle",
        b"",
    ],
    ids=["code", "code-among-arrays", "object-array", "dill-getattr", "truncated", "text", "empty"],
)
def test_a_pickle_that_holds_anything_but_arrays_of_numbers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    with pytest.raises(SynthesisError, match=r"network.pkl cannot be read: it must hold arrays of numbers"):
        load_arrays(path)
    assert not (tmp_path / "pwned").exists()


def test_arrays_of_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    stored = [{"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": 3, "labels": ["TEFF"]}]
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps(stored))
    loaded = load_arrays(path)
    np.testing.assert_array_equal(loaded[0]["w"], stored[0]["w"])
    assert loaded[0]["n"] == 3
