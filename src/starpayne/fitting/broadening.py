"""Rotation, Gaussian broadening and the residual Doppler shift as one product in Fourier space.

On a grid of equal steps in ln λ all three are convolutions with kernels whose Fourier transforms are known in closed
form, exact and differentiable down to zero width. They are functions of the *squares* of the widths, which is also what
the solver varies: at zero width the derivative by the width vanishes, that by its square does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from starpayne.fitting.instrument import LogGrid, fast_length
from starpayne.fitting.pixels import AnyArray

LIMB_DARKENING = 0.6
"""Linear limb-darkening coefficient of a Sun-like star in the optical (Gray 2005, p. 464)."""

Scalar = Float[AnyArray, ""] | float


class Broadening(NamedTuple):
    """The transfer function of a grid, with enough room behind its end that nothing wraps round.

    Args:
        ramp: how the depth behind the last point passes from the last value to the first, (padding,) in [0, 1].
        frequency: (frequencies,) angular frequencies in (km/s)⁻¹.
        instrument2: variance in km²/s² of a line-spread function that is the same everywhere.
        limb_darkening: linear coefficient ε.
    """

    ramp: Float[AnyArray, " padding"]
    frequency: Float[AnyArray, " frequencies"]
    instrument2: Float[AnyArray, ""]
    limb_darkening: Float[AnyArray, ""]

    @classmethod
    def on(
        cls, grid: LogGrid, reach: float, limb_darkening: float = LIMB_DARKENING, instrument: float = 0.0
    ) -> Broadening:
        """Prepare for kernels (and shifts) that reach up to ``reach`` km/s, and an instrument of that σ in km/s."""
        guard = int(np.ceil((reach + 6 * instrument) / grid.velocity_step)) + 16
        # The join is as long as a guard, so that it is smooth on the scale of the kernels.
        total = fast_length(grid.size + 3 * guard)
        join = total - grid.size - 2 * guard
        smooth = 0.5 - 0.5 * np.cos(np.pi * (np.arange(join) + 0.5) / join)
        ramp = np.concatenate([np.zeros(guard), smooth, np.ones(guard)])
        frequency = 2 * np.pi * np.fft.rfftfreq(total, grid.velocity_step)
        return cls(jnp.asarray(ramp, jnp.float32), jnp.asarray(frequency, jnp.float32),
                   jnp.asarray(instrument**2, jnp.float32), jnp.asarray(limb_darkening, jnp.float32))  # fmt: skip

    def transfer(self, shift: Scalar, vsini2: Scalar, sigma2: Scalar) -> Complex[Array, " frequencies"]:
        """Return the transfer function.

        Args:
            shift: km/s, positive towards the red.
            vsini2: (v sin i)² in km²/s².
            sigma2: variance of the Gaussian in km²/s².
        """
        k = jnp.asarray(self.frequency)
        real = rotation_transfer(k * k * vsini2, self.limb_darkening) * jnp.exp(
            -0.5 * k * k * (sigma2 + self.instrument2)
        )
        return real * jnp.exp(-1j * k * shift)

    def once(self, make: Callable[[], Array]) -> Array:
        """Return what a function makes of the transfer function, made before it is used.

        XLA on a CPU would make it anew for each row that is multiplied with it, twenty times. A branch that is always
        taken, which it does not know, keeps the two apart.
        """
        if jax.default_backend() != "cpu":
            return make()
        like = jax.eval_shape(make)
        return jax.lax.cond(jnp.asarray(self.instrument2) >= 0, make, lambda: jnp.zeros(like.shape, like.dtype))

    def spectrum(self, depth: Float[Array, "*batch grid"]) -> Complex[Array, "*batch frequencies"]:
        """Return the Fourier transform of padded line depths."""
        first, last = depth[..., :1], depth[..., -1:]
        return jnp.fft.rfft(jnp.concatenate([depth, last + (first - last) * self.ramp], axis=-1), axis=-1)

    def back(self, spectrum: Complex[Array, "*batch frequencies"], size: int) -> Float[Array, "*batch grid"]:
        """Return line depths on the grid of ``size`` points."""
        total = size + self.ramp.shape[0]
        return jnp.fft.irfft(spectrum, n=total, axis=-1)[..., :size]

    def __call__(
        self, depth: Float[Array, "*batch grid"], shift: Scalar, vsini2: Scalar, sigma2: Scalar
    ) -> Float[Array, "*batch grid"]:
        """Broaden and shift line depths (flux − 1)."""
        return self.back(self.spectrum(depth) * self.transfer(shift, vsini2, sigma2), depth.shape[-1])


@jax.jit
def rotation_transfer(s2: Float[Array, "*n"], limb_darkening: Scalar) -> Float[Array, "*n"]:
    """Return the Fourier transform of Gray's rotation profile at s² = (frequency · v sin i)².

    The profile of a sphere with linear limb darkening (Gray 2005, eq. 18.14) is a half-ellipse plus a parabola; their
    transforms are 2 J₁(s)/s and 3 (sin s − s cos s)/s³.
    """
    eps = limb_darkening
    return ((1 - eps) * _ellipse(s2) + (2 * eps / 3) * _parabola(s2)) / (1 - eps / 3)


def _horner(x: Float[Array, "*n"], coefficients: tuple[float, ...]) -> Float[Array, "*n"]:
    total = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


def _ellipse(s2: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """2 J₁(s)/s by Abramowitz & Stegun 9.4.4 (s <= 3) and 9.4.6, good to 1e-7."""
    inner = jnp.minimum(s2, 9.0)
    near = 2 * _horner(
        inner / 9, (0.5, -0.56249985, 0.21093573, -0.03954289, 0.00443319, -0.00031761, 0.00001109)
    )  # fmt: skip
    s = jnp.sqrt(jnp.maximum(s2, 9.0))
    t = 3 / s
    size = _horner(t, (0.79788456, 0.00000156, 0.01659667, 0.00017105, -0.00249511, 0.00113653, -0.00020033))
    angle = s + _horner(t, (-2.35619449, 0.12499612, 0.00005650, -0.00637879, 0.00074348, 0.00079824, -0.00029166))
    return jnp.where(s2 <= 9.0, near, 2 * size * jnp.cos(angle) / (s * jnp.sqrt(s)))


def _parabola(s2: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """3 (sin s − s cos s)/s³, by its series for s <= 2, where the difference would lose its digits."""
    inner = jnp.minimum(s2, 4.0)
    near = _horner(inner, tuple(_SERIES))
    s = jnp.sqrt(jnp.maximum(s2, 4.0))
    return jnp.where(s2 <= 4.0, near, 3 * (jnp.sin(s) - s * jnp.cos(s)) / s**3)


def _series(terms: int) -> list[float]:
    factorial, out = 6.0, []
    for n in range(terms):
        out.append(3 * (-1) ** n * (2 * n + 2) / factorial)
        factorial *= (2 * n + 4) * (2 * n + 5)
    return out


_SERIES = _series(10)
"""3 Σ (−1)ⁿ s²ⁿ (2n + 2)/(2n + 3)!"""
