"""Air and vacuum, grids, phases, interpolation, and what is said of unusable wavelengths."""

from __future__ import annotations

from decimal import Decimal, localcontext

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from starpayne.errors import WavelengthError
from starpayne.wavelengths import (
    SPEED_OF_LIGHT,
    air_to_vacuum,
    check_coverage,
    check_medium,
    check_wavelength,
    convert_medium,
    doppler_factor,
    lagrange_weights,
    log_grid,
    phases,
    sampling_of,
    vacuum_to_air,
)

# -- air and vacuum -------------------------------------------------------------------------------------------------


@given(vacuum=st.floats(2001, 50000))
def test_air_and_vacuum_are_inverse_to_a_billionth_of_an_angstrom(vacuum: float) -> None:
    assert abs(float(air_to_vacuum(vacuum_to_air(vacuum))) - vacuum) < 1e-9
    assert vacuum_to_air(vacuum) < vacuum


def test_5000_angstrom_in_air_and_vacuum_differ_by_83_km_per_s() -> None:
    assert (float(air_to_vacuum(5000.0)) / 5000 - 1) * SPEED_OF_LIGHT == pytest.approx(83.6, abs=0.1)


def test_the_conversion_agrees_with_edlens_formula_and_with_tabulated_lines() -> None:
    vacuum = np.linspace(3000, 20000, 50)
    # Edlén 1953, as in Morton 1991 (the IAU standard before Ciddor): another fit to other measurements.
    s2 = (1e4 / vacuum) ** 2
    edlen = vacuum / (1 + 6.4328e-5 + 2.94981e-2 / (146 - s2) + 2.5540e-4 / (41 - s2))
    np.testing.assert_allclose(vacuum_to_air(vacuum), edlen, rtol=0, atol=0.0005)
    # [O III] and Hα as SDSS tabulates them.
    np.testing.assert_allclose(air_to_vacuum([5006.843, 6562.801]), [5008.240, 6564.614], rtol=0, atol=0.001)


def test_below_2000_angstrom_wavelengths_are_vacuum_in_either_medium() -> None:
    assert float(vacuum_to_air(1215.67)) == 1215.67
    assert float(air_to_vacuum(1215.67)) == 1215.67


def test_a_wavelength_in_the_medium_asked_for_is_left_alone() -> None:
    wavelength = np.array([5000.0, 5001.0])
    assert convert_medium(wavelength, "air", "air") is wavelength
    np.testing.assert_array_equal(convert_medium(wavelength, "air", "vacuum"), air_to_vacuum(wavelength))
    np.testing.assert_array_equal(convert_medium(wavelength, "vacuum", "air"), vacuum_to_air(wavelength))


def test_an_unknown_medium_is_refused() -> None:
    with pytest.raises(WavelengthError, match=r"medium 'water' is not known; say 'air' or 'vacuum'"):
        check_medium("water")


# -- grids and Doppler ----------------------------------------------------------------------------------------------


@given(low=st.floats(1000, 20000), width=st.floats(0.001, 0.2), sampling=st.floats(1e3, 3e5))
@settings(max_examples=50)
def test_a_log_grid_keeps_its_sampling_and_its_ends(low: float, width: float, sampling: float) -> None:
    high = low * (1 + width)
    grid = log_grid(low, high, sampling)
    assert grid[0] == low
    assert grid[-1] <= high * (1 + 1e-9)
    assert grid[-1] * np.exp(1 / sampling) > high * (1 - 1e-9)
    if len(grid) > 1:
        assert sampling_of(grid) == pytest.approx(sampling, rel=1e-6)


def test_the_shared_grids_wavelengths_are_a_log_grid(data_folder) -> None:
    wavelength = np.load(data_folder / "mgb_reference" / "wavelength.npy")
    np.testing.assert_allclose(log_grid(wavelength[0], 5210.0, 200000), wavelength, rtol=1e-12)


@pytest.mark.parametrize("bad", [(5000.0, 4000.0, 1e5), (0.0, 1.0, 1e5), (5000.0, 5010.0, 1.0)])
def test_an_impossible_log_grid_is_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(WavelengthError, match=r"log_grid needs 0 < low < high and sampling > 1, got"):
        log_grid(*bad)


def test_the_sampling_of_one_wavelength_is_refused() -> None:
    with pytest.raises(WavelengthError, match=r"sampling of fewer than two wavelengths is not defined"):
        sampling_of(np.array([5000.0]))


def test_doppler_factors_are_relativistic_and_undo_each_other() -> None:
    assert doppler_factor(0.0) == 1.0
    assert doppler_factor(300.0) * doppler_factor(-300.0) == pytest.approx(1, abs=1e-15)
    assert (doppler_factor(30.0) - 1) * SPEED_OF_LIGHT == pytest.approx(30.0, abs=2e-3)
    beta = 0.5
    assert doppler_factor(beta * SPEED_OF_LIGHT) == pytest.approx(np.sqrt((1 + beta) / (1 - beta)))


# -- phases -----------------------------------------------------------------------------------------------------------


def exact_phase(wavelength: float, period: float) -> float:
    """sin(2π log10(λ)/P) with the turns counted to forty digits."""
    with localcontext() as context:
        context.prec = 40
        turns = Decimal(wavelength).log10() / Decimal(period)
        return float(np.sin(2 * np.pi * float(turns - turns.to_integral_value())))


def test_neighbouring_wavelengths_at_the_shortest_period_have_the_phase_of_float64() -> None:
    assert not jax.config.jax_enable_x64  # exact without JAX's global 64-bit mode
    wavelength = 9000 + 0.001 * np.arange(20)
    found = phases(wavelength, np.array([1e-6]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], [exact_phase(x, 1e-6) for x in wavelength], rtol=0, atol=1e-6)
    assert np.min(np.abs(np.diff(found[:, 0]))) > 1e-3  # neighbours are told apart


@given(wavelength=st.floats(1000, 25000), period=st.floats(1e-6, 10))
def test_any_phase_is_that_of_exact_arithmetic(wavelength: float, period: float) -> None:
    found = phases(np.array([wavelength]), np.array([period]))
    assert abs(float(found[0, 0]) - exact_phase(wavelength, period)) < 1e-6


# -- interpolation ----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    steps=arrays(np.float64, st.integers(3, 20), elements=st.floats(0.01, 0.3)),
    coefficients=arrays(np.float64, 4, elements=st.floats(-1, 1)),
    where=arrays(np.float64, 10, elements=st.floats(0, 1)),
)
def test_lagrange_interpolation_is_exact_for_cubics(
    steps: np.ndarray, coefficients: np.ndarray, where: np.ndarray
) -> None:
    nodes = 5000 + np.concatenate([[0], np.cumsum(steps)])
    targets = nodes[0] + where * (nodes[-1] - nodes[0])

    def cubic(x: np.ndarray) -> np.ndarray:
        return np.polyval(coefficients, x - 5000)

    indices, weights = lagrange_weights(nodes, targets)
    scale = 1 + np.abs(cubic(nodes)).max()
    # The weights of very uneven nodes are large, and what cancels then is lost.
    tolerance = 1e-10 * scale * np.abs(weights).sum(axis=1).max()
    np.testing.assert_allclose(np.sum(cubic(nodes)[indices] * weights, axis=1), cubic(targets), rtol=0, atol=tolerance)


def test_lagrange_interpolation_is_exact_at_the_nodes() -> None:
    nodes = log_grid(5000, 5010, 20000)
    values = np.random.default_rng(0).random(len(nodes))
    indices, weights = lagrange_weights(nodes, nodes)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(np.sum(values[indices] * weights, axis=1), values)


def test_too_few_nodes_for_a_cubic_are_refused() -> None:
    with pytest.raises(WavelengthError, match=r"cubic interpolation needs at least 4 wavelengths .* got 3"):
        lagrange_weights(np.array([1.0, 2.0, 3.0]), np.array([1.5]))


# -- unusable wavelengths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ([], r"wavelength must be a non-empty one-dimensional array, got shape \(0,\)"),
        ([[5000.0]], r"wavelength must be a non-empty one-dimensional array, got shape \(1, 1\)"),
        (5000.0, r"one-dimensional array, got shape \(\)"),
        ([5000.0, np.nan, 5001.0], r"wavelength\[1\] = nan is not a finite number"),
        ([5000.0, np.inf], r"wavelength\[1\] = inf is not a finite number"),
        (
            [5001.0, 5000.0],
            r"wavelengths must increase: wavelength\[0\] = 5001.0000 is followed by 5000.0000; sort them, or split",
        ),
        ([5000.0, 5001.0, 5001.0], r"must increase: wavelength\[1\] = 5001.0000 is followed by 5001.0000"),
        ([0.5, 0.6], r"wavelengths start at 0.5: starpayne expects Å. For nm multiply by 10, for µm by 10,000"),
        ([500.0, 501.0], r"wavelengths start at 500: starpayne expects Å. For nm multiply by 10"),
        ([-5000.0], r"wavelengths start at -5000: starpayne expects Å"),
    ],
)
def test_unusable_wavelengths_are_refused(bad, text: str) -> None:
    with pytest.raises(WavelengthError, match=text):
        check_wavelength(bad)


def test_usable_wavelengths_come_back_in_float64_and_unchanged() -> None:
    given_values = [5000.0000001, 5000.0000002]
    checked = check_wavelength(given_values)
    assert checked.dtype == np.float64
    assert checked.tolist() == given_values


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
def test_a_traced_wavelength_is_refused_with_what_to_do(transform) -> None:
    def trace(wavelength):
        check_wavelength(wavelength)
        return 0.0

    values = np.float32(5000) if transform is jax.grad else np.array([5000.0, 5001.0], np.float32)
    with pytest.raises(
        WavelengthError, match=r"the wavelength is traced by JAX .*Call bound = emulator.on\(wavelength\) outside"
    ):
        transform(trace)(values)


def test_wavelengths_outside_the_range_are_refused_with_both_ranges() -> None:
    with pytest.raises(
        WavelengthError,
        match=r"^wavelengths 4999.000 to 5005.000 Å leave the model's range 5000.000 to 5010.000 Å \(air\)$",
    ):
        check_coverage(np.array([4999.0, 5005.0]), 5000.0, 5010.0, "air")
    check_coverage(np.array([5000.0 - 1e-6, 5010.0 + 1e-6]), 5000.0, 5010.0, "air")
