"""The whole forward model against direct convolution in float64, and its derivatives."""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_star import RESOLUTION, SPACE, TRUTH
from scipy.interpolate import CubicSpline

from starpayne import simulate
from starpayne.bundle import Model
from starpayne.emulators import TransformerPayne
from starpayne.errors import SpectrumError, WavelengthError
from starpayne.fitting import ForwardModel
from starpayne.fitting.forward import bind
from starpayne.wavelengths import air_to_vacuum, log_grid

PIXELS = log_grid(5006.0, 5054.0, 3 * RESOLUTION)


@eqx.filter_jit
def _flux(forward: ForwardModel, labels: jax.Array, rv: jax.Array, vsini: jax.Array) -> jax.Array:
    return forward(labels, rv, vsini)


def seen_by(forward: ForwardModel, rv: float, vsini: float) -> np.ndarray:
    """The known star's flux, compiled whole: operation by operation is many times as much to compile."""
    return np.asarray(_flux(forward, jnp.asarray(TRUTH, jnp.float32), jnp.float32(rv), jnp.float32(vsini)))


@pytest.mark.parametrize(("rv", "vsini"), [(0.0, 0.0), (0.0, 25.0), (63.4, 12.0), (-88.0, 5.0)])
def test_forward_equals_direct_convolution(star_model: Model, rv: float, vsini: float) -> None:
    emulator = star_model.emulator
    at_rest = emulator.predict(TRUTH)
    # Between the model's points both must mean the same curve: the simulation draws straight lines.
    fine = log_grid(5000.0, 5059.9, 800_000.0)
    smooth = CubicSpline(at_rest.wavelength, at_rest.flux)(fine)
    setup = simulate.Observation(rv=rv, vsini=vsini, resolution=RESOLUTION, snr=1e7)
    seen = simulate.observe(fine, smooth, 5006.0, 5054.0, setup, "air")
    forward, usable = ForwardModel.on(emulator, seen.wavelength, RESOLUTION, velocity=round(rv), vsini_max=30)
    flux = seen_by(forward, rv, vsini)
    assert usable.mean() > 0.9
    assert np.max(np.abs(flux - seen.flux)[usable]) < 1e-3


def test_a_featureless_star_stays_flat(star_model: Model) -> None:
    emulator = eqx.tree_at(
        lambda e: (e.width, e.center),
        star_model.emulator,
        (jnp.zeros_like(star_model.emulator.width), jnp.ones_like(star_model.emulator.center)),
    )
    forward, usable = ForwardModel.on(emulator, PIXELS, RESOLUTION)
    flux = seen_by(forward, 3.0, 20.0)
    assert usable.all()
    np.testing.assert_allclose(flux, 1.0, atol=1e-6)


def test_derivatives_match_finite_differences(star_model: Model) -> None:
    forward, usable = ForwardModel.on(star_model.emulator, PIXELS, RESOLUTION, broadening_max=5)
    here = jnp.concatenate([jnp.asarray(TRUTH, jnp.float32), jnp.array([4.0, 12.0, 3.0])])

    @jax.jit
    def model(p: jax.Array) -> jax.Array:
        return forward(p[:5], p[5], p[6], p[7])

    by = np.asarray(jax.jit(jax.jacfwd(model))(here))[usable]
    steps = np.array([*(0.01 * (SPACE.high - SPACE.low)), 0.05, 0.1, 0.1])
    for i, step in enumerate(steps):
        up, down = (np.asarray(model(here.at[i].add(s * step)), np.float64)[usable] for s in (1, -1))
        slope = (up - down) / (2 * step)
        assert np.max(np.abs(by[:, i] - slope)) < 0.01 * np.max(np.abs(slope)) + 2e-6 / step


def test_it_can_be_differentiated_at_no_rotation(star_model: Model) -> None:
    forward, _ = ForwardModel.on(star_model.emulator, PIXELS, RESOLUTION)
    slope = jax.jit(jax.jacfwd(lambda vsini: forward(jnp.asarray(TRUTH, jnp.float32), 0.0, vsini)))(0.0)
    assert np.all(np.isfinite(np.asarray(slope)))


def test_vacuum_pixels_are_converted(star_model: Model) -> None:
    one, _ = ForwardModel.on(star_model.emulator, PIXELS, RESOLUTION)
    other, _ = ForwardModel.on(star_model.emulator, air_to_vacuum(PIXELS), RESOLUTION, medium="vacuum")
    np.testing.assert_allclose(seen_by(one, 0.0, 0.0), seen_by(other, 0.0, 0.0), atol=1e-5)


def test_no_overlap_prints_both_ranges(star_model: Model) -> None:
    text = r"6000.00 to 6010.00 Å in air, does not overlap the model, 5000.00 to 5059.94 Å.*--unit"
    with pytest.raises(SpectrumError, match=text):
        ForwardModel.on(star_model.emulator, np.linspace(6000.0, 6010.0, 100), RESOLUTION)
    with pytest.raises(WavelengthError, match="wavelengths must increase"):
        ForwardModel.on(star_model.emulator, PIXELS[::-1], RESOLUTION)


def test_an_emulator_of_any_wavelength_is_bound_only_where_it_is_needed(star_model: Model) -> None:
    domain = replace(star_model.emulator.domain, low=4900.0, high=5200.0)
    emulator = TransformerPayne.initialise(SPACE, domain, ("flux",), width=32, depth=1, tokens=4, key=jax.random.key(0))
    bound, grid = bind(emulator, 5020.0, 5021.0, reach=20.0)
    assert grid.size < len(emulator.native_wavelength) // 2
    assert grid.wavelength[0] < 5019.5
    assert grid.wavelength[-1] > 5021.5
    np.testing.assert_allclose(bound.wavelength.values, grid.wavelength, rtol=1e-12)
