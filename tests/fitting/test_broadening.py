"""Rotation, Gaussian broadening and shift in Fourier space, against direct numerical convolution in float64."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from scipy.integrate import quad

from starpayne.fitting.broadening import Broadening, rotation_transfer
from starpayne.fitting.instrument import LogGrid

GRID = LogGrid(np.log(5000.0), 1 / 100_000, 1500)


@eqx.filter_jit
def broadened(broaden: Broadening, depth: Array, shift: Array, vsini2: Array, sigma2: Array) -> Array:
    """What ``broaden`` returns, compiled whole: operation by operation is many times as much to compile."""
    return broaden(depth, shift, vsini2, sigma2)


def broadened_by(broaden: Broadening, depth: Array, *widths: float) -> np.ndarray:
    """The same at numbers that are arguments, so that it is compiled once for all of them."""
    return np.asarray(broadened(broaden, depth, *(jnp.float32(width) for width in widths)))


def gray(x: np.ndarray | float, epsilon: float) -> np.ndarray | float:
    """Gray (2005), eq. 18.14, in units of v sin i."""
    root = np.sqrt(np.maximum(1 - np.asarray(x) ** 2, 0))
    return (2 * (1 - epsilon) * root + np.pi * epsilon / 2 * root**2) / (np.pi * (1 - epsilon / 3))


def lines(x: np.ndarray) -> np.ndarray:
    """Depths (flux − 1) of a few lines against ln λ − ln 5000."""
    u = x * 100_000
    return sum(-d * np.exp(-0.5 * ((u - c) / w) ** 2) for c, d, w in ((300, 0.7, 2.5), (720, 0.4, 4), (760, 0.5, 3)))


def directly(x: np.ndarray, vsini: float, sigma: float, shift: float, epsilon: float = 0.6) -> np.ndarray:
    """The same by quadrature over the kernels."""
    speed = 299792.458
    nodes, weights = np.polynomial.legendre.leggauss(120)
    # v = v sin i · sin t removes the infinite slope of the kernel at its ends.
    t = nodes * np.pi / 2
    kernel = gray(np.sin(t), epsilon) * np.cos(t) * weights * np.pi / 2
    z, g = np.polynomial.hermite_e.hermegauss(24)
    g = g / g.sum()
    out = np.zeros_like(x)
    for v, k in zip(vsini * np.sin(t), kernel, strict=True):
        for u, h in zip(sigma * z, g, strict=True) if sigma else ((0.0, 1.0),):
            out += k * h * lines(x - (v + u + shift) / speed)
    return out


@given(s=st.floats(0, 300), epsilon=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_rotation_transfer_is_the_transform_of_grays_profile(s: float, epsilon: float) -> None:
    # x = sin t, as above.
    value, _ = quad(
        lambda t: gray(np.sin(t), epsilon) * np.cos(t) * np.cos(s * np.sin(t)), -np.pi / 2, np.pi / 2, limit=400
    )
    assert abs(float(rotation_transfer(jnp.float32(s) ** 2, epsilon)) - value) < 3e-6


def test_rotation_transfer_is_smooth_down_to_no_rotation() -> None:
    slope = jax.jit(jax.vmap(jax.grad(lambda s2: rotation_transfer(s2, 0.6))))
    s2 = jnp.array([0.0, 1e-8, 1e-4, 0.01, 3.99, 4.01, 8.99, 9.01])
    derivative = np.asarray(slope(s2))
    # G ≈ 1 − s² <x²>/2, with <x²> of Gray's profile.
    second, _ = quad(lambda x: x**2 * gray(x, 0.6), -1, 1)
    np.testing.assert_allclose(derivative[:3], -second / 2, rtol=1e-4)
    assert np.all(np.isfinite(derivative))
    assert abs(derivative[4] - derivative[5]) < 1e-3
    assert abs(derivative[6] - derivative[7]) < 1e-3


@pytest.mark.parametrize(
    ("vsini", "sigma", "shift"), [(0, 0, 0), (0, 0, 7.3), (6, 0, 0), (40, 0, -3.1), (0, 5, 2.0), (25, 4, 11.0)]
)
def test_broadening_equals_direct_convolution(vsini: float, sigma: float, shift: float) -> None:
    x = GRID.log_wavelength - GRID.start
    broaden = Broadening.on(GRID, reach=120.0)
    got = broadened_by(broaden, jnp.asarray(lines(x), jnp.float32), shift, vsini**2, sigma**2)
    assert np.max(np.abs(got - directly(x, vsini, sigma, shift))) < 3e-5


@given(
    level=st.floats(-0.9, 0.9), vsini=st.floats(0, 80), sigma=st.floats(0, 10), shift=st.floats(-20, 20),
    size=st.sampled_from((64, 501, 900)),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_flat_stays_flat(level: float, vsini: float, sigma: float, shift: float, size: int) -> None:
    grid = LogGrid(8.5, 1 / 60_000, size)
    broaden = Broadening.on(grid, reach=160.0)
    flat = jnp.full(size, level, jnp.float32)
    assert np.max(np.abs(broadened_by(broaden, flat, shift, vsini**2, sigma**2) - np.float32(level))) < 1e-6


@given(shift=st.floats(-30, 30))
@settings(max_examples=20, deadline=None)
def test_shift_there_and_back_again(shift: float) -> None:
    x = GRID.log_wavelength - GRID.start
    depth = jnp.asarray(lines(x), jnp.float32)
    broaden = Broadening.on(GRID, reach=40.0)
    back = broadened_by(broaden, jnp.asarray(broadened_by(broaden, depth, shift, 0.0, 0.0)), -shift, 0.0, 0.0)
    assert np.max(np.abs(back - np.asarray(depth))) < 1e-5


def test_nothing_wraps_round_the_ends() -> None:
    depth = np.zeros(GRID.size)
    depth[-40:] = -0.8
    got = broadened_by(Broadening.on(GRID, reach=100.0), jnp.asarray(depth, jnp.float32), 5.0, 60.0**2, 4.0**2)
    assert np.max(np.abs(got[:700])) < 1e-4
    assert got[-1] == pytest.approx(-0.8, abs=0.02)


def test_derivatives_match_finite_differences() -> None:
    x = GRID.log_wavelength - GRID.start
    depth = jnp.asarray(lines(x), jnp.float32)
    broaden = Broadening.on(GRID, reach=120.0)
    here = jnp.array([3.0, 20.0**2, 3.0**2])
    by = np.asarray(jax.jit(jax.jacfwd(lambda p: broaden(depth, p[0], p[1], p[2])))(here))
    for i, step in enumerate((0.05, 4.0, 0.1)):
        up, down = (
            broadened_by(broaden, depth, *(here + sign * step * np.eye(3, dtype=np.float32)[i])) for sign in (1, -1)
        )
        slope = (up.astype(np.float64) - down.astype(np.float64)) / (2 * step)
        assert np.max(np.abs(by[:, i] - slope)) < 0.01 * np.max(np.abs(slope)) + 2e-6 / step
