"""The instrument matrix: flat spectra, any sampling, direct convolution, what is refused and what is masked."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array

from starpayne.errors import SpectrumError
from starpayne.fitting.instrument import LogGrid, pixel_bands, pixel_edges
from starpayne.fitting.pixels import Bands, PixelMatrix
from starpayne.fitting.resolution import FWHM, TabulatedProfile, check_resolution
from starpayne.wavelengths import SPEED_OF_LIGHT, doppler_factor

GRID = LogGrid(np.log(5000.0), 1 / 100_000, 1200)
PIXELS = np.arange(5004.0, 5054.0, 0.07)
LINES = ((150, 0.7, 1.8), (400, 0.4, 4), (430, 0.5, 2.5), (800, 0.6, 1.5))


def observed(bands: Bands, depth: Array) -> Array:
    """Line depths on the pixels."""
    return applied(bands.matrix(depth.shape[-1]), depth)


@eqx.filter_jit
def applied(matrix: PixelMatrix, depth: Array) -> Array:
    """Compiled whole: operation by operation is several times as much to compile."""
    return matrix(depth)


def lines(x: np.ndarray) -> np.ndarray:
    """Depths (flux − 1) of a few lines against ln λ; the sharpest has a FWHM of 3.5 steps of the grid."""
    u = (x - GRID.start) / GRID.step
    return sum(-d * np.exp(-0.5 * ((u - c) / w) ** 2) for c, d, w in LINES)


def directly(wavelength: np.ndarray, resolution: float, velocity: float) -> np.ndarray:
    """Lines through a Gaussian and averaged over pixels, by quadrature in float64."""
    low, high = (np.log(edge / doppler_factor(velocity)) for edge in pixel_edges(wavelength))
    z, g = np.polynomial.hermite_e.hermegauss(60)
    g = g / g.sum()
    nodes, weights = np.polynomial.legendre.leggauss(12)
    x = 0.5 * (low + high)[:, None] + 0.5 * (high - low)[:, None] * nodes
    sigma = 1 / resolution / FWHM
    return sum(h * lines(x + sigma * u) for u, h in zip(z, g, strict=True)) @ weights / 2


@pytest.mark.parametrize("resolution", [50_000.0, 30_000.0, 9_000.0])
@pytest.mark.parametrize("velocity", [0.0, 137.2, -90.0])
def test_matrix_equals_direct_convolution(resolution: float, velocity: float) -> None:
    pixels = PIXELS * doppler_factor(velocity)
    matrix, usable = pixel_bands(GRID, pixels, resolution, velocity=velocity)
    got = np.asarray(observed(matrix, jnp.asarray(lines(GRID.log_wavelength), jnp.float32)))
    assert usable.mean() > 0.9
    assert np.max(np.abs(got - directly(pixels, resolution, velocity))[usable]) < 2e-4


@given(
    steps=st.lists(st.floats(0.01, 0.4), min_size=20, max_size=150), resolution=st.floats(2_000, 50_000),
    velocity=st.floats(-300, 300), level=st.floats(-0.9, 0.9),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_flat_stays_flat_on_any_sampling(steps: list[float], resolution: float, velocity: float, level: float) -> None:
    wavelength = 5015.0 + np.cumsum(steps)
    matrix, usable = pixel_bands(GRID, wavelength, resolution, velocity=velocity)
    got = np.asarray(observed(matrix, jnp.full(GRID.size, level, jnp.float32)))
    assert np.max(np.abs(got - np.float32(level)), initial=0, where=usable) < 1e-6
    assert np.all(got[~usable] == 0)


def test_a_star_that_is_no_sharper_than_the_model_is_only_averaged_over_pixels() -> None:
    matrix, usable = pixel_bands(GRID, PIXELS, 20_000.0, model_resolution=20_000.0)
    got = np.asarray(observed(matrix, jnp.asarray(lines(GRID.log_wavelength), jnp.float32)))
    assert np.max(np.abs(got - directly(PIXELS, 1e7, 0.0))[usable]) < 2e-3


def test_widths_subtract_in_quadrature() -> None:
    own, seen = 30_000.0, 18_000.0
    missing = (seen**-2 - own**-2) ** -0.5
    one, _ = pixel_bands(GRID, PIXELS, seen, model_resolution=own)
    other, _ = pixel_bands(GRID, PIXELS, missing)
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-7)


def test_one_resolution_per_pixel() -> None:
    many = np.where(PIXELS < 5030, 20_000.0, 10_000.0)
    mixed, usable = pixel_bands(GRID, PIXELS, many)
    depth = jnp.asarray(lines(GRID.log_wavelength), jnp.float32)
    got = np.asarray(observed(mixed, depth))
    for resolution in (20_000.0, 10_000.0):
        alone, _ = pixel_bands(GRID, PIXELS, resolution)
        here = usable & (many == resolution)
        np.testing.assert_allclose(got[here], np.asarray(observed(alone, depth))[here], atol=2e-6)


def test_a_tabulated_gaussian_is_a_gaussian() -> None:
    sigma = SPEED_OF_LIGHT / 20_000 / FWHM
    velocity = np.linspace(-5 * sigma, 5 * sigma, 401)
    table = TabulatedProfile(velocity, 3.0 * np.exp(-0.5 * (velocity / sigma) ** 2))
    depth = jnp.asarray(lines(GRID.log_wavelength), jnp.float32)
    one, usable = pixel_bands(GRID, PIXELS, table)
    other, _ = pixel_bands(GRID, PIXELS, 20_000.0)
    assert np.max(np.abs(np.asarray(observed(one, depth)) - np.asarray(observed(other, depth)))[usable]) < 2e-4


def test_pixels_next_to_a_gap_keep_their_width() -> None:
    low, high = pixel_edges(np.array([1.0, 2.0, 3.0, 10.0, 11.0]))
    np.testing.assert_allclose(low, [0.5, 1.5, 2.5, 9.5, 10.5])
    np.testing.assert_allclose(high, [1.5, 2.5, 3.5, 10.5, 11.5])


def test_pixels_whose_kernel_leaves_the_model_are_left_out() -> None:
    wide = np.arange(4990.0, 5070.0, 0.1)
    _, narrow = pixel_bands(GRID, wide, 30_000.0)
    _, margin = pixel_bands(GRID, wide, 30_000.0, margin=60.0)
    assert wide[narrow][0] > 5000.0
    assert wide[narrow][-1] < GRID.wavelength[-1]
    assert wide[margin][0] - wide[narrow][0] == pytest.approx(5000 * 60 / SPEED_OF_LIGHT, abs=0.11)
    _, none = pixel_bands(GRID, wide, 30_000.0, velocity=2_000.0)
    assert wide[none][0] > 5030
    matrix, none = pixel_bands(GRID, np.arange(6000.0, 6010.0), 30_000.0)
    assert not none.any()
    assert np.all(np.asarray(observed(matrix, jnp.ones(GRID.size))) == 0)


@pytest.mark.parametrize(
    ("resolution", "own", "text"),
    [
        (60_000.0, None, "resolution = 60000 is above half the sampling of the model, 50000: use a model on finer"),
        (40_000.0, 30_000.0, "resolution = 40000 is above the resolution of the model's own spectra, 30000"),
        (0.0, None, "resolution = 0 must be a positive number"),
        (np.array([1e4, np.nan]), None, "resolution = nan must be a positive number"),
    ],
)
def test_refused_resolutions(resolution: float | np.ndarray, own: float | None, text: str) -> None:
    with pytest.raises(SpectrumError, match=text):
        check_resolution(resolution, 100_000.0, own)


def test_refused_tables() -> None:
    with pytest.raises(SpectrumError, match="two columns of the same length"):
        TabulatedProfile(np.arange(3.0), np.ones(4))
    with pytest.raises(SpectrumError, match="needs increasing velocities"):
        TabulatedProfile(np.array([0.0, 1.0, 0.5]), np.ones(3))
