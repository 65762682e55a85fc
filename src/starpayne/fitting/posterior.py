"""Posterior sampling of one star by the no-U-turn sampler, where a Gaussian around the best fit is not enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from starpayne.bundle import Model
from starpayne.errors import LabelError, MissingExtraError, SpectrumError, did_you_mean
from starpayne.fitting.density import Target, log_density, target_of
from starpayne.fitting.following import follow
from starpayne.fitting.forward import log_velocity
from starpayne.fitting.options import FitOptions
from starpayne.fitting.problem import Descent
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.result import FitResult
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import summarise
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import SPEED_OF_LIGHT

BLOCK = 50
"""Steps of one call of the compiled function: between two calls progress is reported."""

MAX_R_HAT, MIN_N_EFF = 1.05, 100.0
"""Beyond these the chains have not mixed well enough for intervals (Gelman et al. 2013, Bayesian Data Analysis)."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from the posterior of one star.

    Args:
        result: the best fit, around which the chains began.
        names: of the free parameters, in order: labels, then those of ``rv``, ``vsini``, ``broadening`` that are free.
        samples: (chains, draws, p) float64, physical units (km/s for the last three).
        r_hat: name → split R̂, how much wider all chains together are than one alone; 1 when they agree.
        n_eff: name → of how many independent draws the mean is worth.
        divergences: draws at which the sampler lost its way; more than a few mean that a corner was not explored.
    """

    result: FitResult
    names: tuple[str, ...]
    samples: np.ndarray
    r_hat: dict[str, float]
    n_eff: dict[str, float]
    divergences: int

    @property
    def flat(self) -> np.ndarray:
        """(n, p) the draws of all chains, one after another."""
        return self.samples.reshape(-1, len(self.names))

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of the fit, and ``not_converged`` where R̂ exceeds 1.05 or n_eff is below 100."""
        # A value that is no number counts as bad.
        mixed = all(x <= MAX_R_HAT for x in self.r_hat.values()) and all(x >= MIN_N_EFF for x in self.n_eff.values())
        return tuple(dict.fromkeys([*self.result.flags, *([] if mixed else ["not_converged"])]))

    def interval(self, name: str, level: float = 0.683) -> tuple[float, float, float]:
        """Return (median, low, high) of a parameter: the central interval that holds a fraction ``level`` of the draws.

        Raises:
            LabelError: for a name that is not among ``names``.
            SpectrumError: for a level that is not between 0 and 1.
        """
        if name not in self.names:
            hint = did_you_mean(name, self.names)
            raise LabelError(f"{name!r} was not sampled{hint} (sampled: {', '.join(self.names)})")
        if not 0 < level < 1:
            raise SpectrumError(f"level = {level:g} is outside the range 0 to 1")
        draws = self.flat[:, self.names.index(name)]
        median, low, high = np.quantile(draws, [0.5, 0.5 - level / 2, 0.5 + level / 2])
        return float(median), float(low), float(high)

    def summary(self) -> dict[str, Any]:
        """Return plain JSON data: of each parameter the median, the 68.3 % interval, mean, standard deviation, R̂ and
        n_eff."""
        parameters = {}
        for i, name in enumerate(self.names):
            median, low, high = self.interval(name)
            parameters[name] = {
                "median": median, "low": low, "high": high,
                "mean": float(self.flat[:, i].mean()), "std": float(self.flat[:, i].std()),
                "r_hat": _number(self.r_hat[name]), "n_eff": _number(self.n_eff[name]),
            }  # fmt: skip
        chains, draws, _ = self.samples.shape
        return {
            "file": self.result.name,
            "chains": chains,
            "draws": draws,
            "divergences": self.divergences,
            "flags": list(self.flags),
            "parameters": parameters,
        }

    def write(self, path: str | Path) -> None:
        """Write ``samples`` and ``names`` to an .npz file.

        Raises:
            SpectrumError: for a path with another suffix.
        """
        path = Path(path)
        if path.suffix.lower() != ".npz":
            raise SpectrumError(f"{path.name}: draws are written as .npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, samples=self.samples, names=np.array(self.names))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def sample(
    spectrum: ObservedSpectrum,
    model: Model,
    resolution: Resolution,
    options: FitOptions | None = None,
    *,
    draws: int = 1000,
    warmup: int = 500,
    chains: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Posterior:
    """Fit one star, then draw from its posterior.

    The likelihood is Gaussian, with the errors of the fit: those stated, the emulator's with its correlations, and
    jitter and robust weights *fixed as the fit has them*, so χ² is divided by what the fit multiplies its covariance
    by. The continuum is integrated over analytically, with flat priors on its coefficients. Labels have flat priors in
    physical units inside the region that bounds and constraints allow, the velocity and the widths in km/s, times the
    Gaussians of ``options.prior``. The velocity stays in the room of the fit, some 10 km/s and half a resolution
    element around the best one.

    Args:
        spectrum, model, resolution, options: as of :func:`starpayne.fitting.fit`.
        draws: kept per chain, after ``warmup`` steps that tune the sampler.
        chains: begun apart, so that their agreement means something.
        seed: the same seed gives the same draws.
        progress: called now and then with the steps done and their total.

    Returns:
        the draws and how far to trust them; chains that did not mix are a flag, not an exception.

    Raises:
        SpectrumError, LabelError: as of :func:`starpayne.fitting.fit`; also if the fit failed, nothing is free, or a
            number is out of its range.
        MissingExtraError: if NumPyro is not installed.

    Source:
        NUTS: Hoffman & Gelman 2014, JMLR 15, 1593.

    Example:
        ``sample(ObservedSpectrum.read("sun.fits"), load("model"), 47000).interval("teff")``
    """
    for name, value, low, high in (
        ("draws", draws, 50, 1_000_000), ("warmup", warmup, 20, 1_000_000), ("chains", chains, 1, 64),
        ("seed", seed, 0, 2**32 - 1),
    ):  # fmt: skip
        if not low <= value <= high:
            raise SpectrumError(f"{name} = {value} is outside the range {low} to {high}")
    _numpyro()
    setup = Setup(model, options or FitOptions())
    if not len(setup.parameters):
        raise SpectrumError("every parameter is fixed: there is no posterior to draw from; leave one free")
    (descent,) = follow([spectrum], resolution, setup, lambda descent: descent)
    if isinstance(descent, Exception):
        raise descent
    result = summarise(descent, setup)
    if "failed" in result.flags:
        raise SpectrumError(f"{result.name}: the fit failed, so there is no posterior to draw from")

    target = target_of(descent, setup)
    start, keys = jax.random.split(jax.random.key(seed))
    state = _begin(target, _starts(target, start, chains), jax.random.split(keys, chains), warmup)
    total, taken, wild = warmup + draws, [], []
    for done in range(0, total, BLOCK):
        steps = min(BLOCK, total - done)
        state, z, diverging = _steps(target, state, warmup, jnp.asarray(steps))
        taken.append(np.asarray(z)[:, :steps])
        wild.append(np.asarray(diverging)[:, :steps])
        if progress is not None:
            progress(done + steps, total)
    z = np.concatenate(taken, axis=1)[:, warmup:]
    names = setup.parameters.names
    # As the labels of the result.
    samples = _physical(target, z, descent) - [result.zero_points.get(name, 0.0) for name in names]
    diagnostics = _numpyro().diagnostics
    # A chain that never moved has no variance to compare.
    with np.errstate(invalid="ignore", divide="ignore"):
        r_hat, n_eff = diagnostics.split_gelman_rubin(samples), diagnostics.effective_sample_size(samples)
    return Posterior(
        result, names, samples,
        {name: float(value) for name, value in zip(names, r_hat, strict=True)},
        {name: float(value) for name, value in zip(names, n_eff, strict=True)},
        int(np.concatenate(wild, axis=1)[:, warmup:].sum()),
    )  # fmt: skip


def _numpyro() -> Any:
    try:
        import numpyro.diagnostics
        import numpyro.infer.hmc
    except ImportError as error:
        raise MissingExtraError(f'NumPyro is missing ({error}); run: pip install "starpayne[sampling]"') from error
    return numpyro


def _potential(target: Target) -> Callable[[Array], Array]:
    return lambda z: -log_density(target, z)


@eqx.filter_jit
def _energies(target: Target, z: Float[Array, "chains p"]) -> Float[Array, " chains"]:
    return jax.vmap(_potential(target))(z)


def _starts(target: Target, key: Array, chains: int) -> Float[Array, "chains p"]:
    """Return one point per chain, about as far apart as draws are, nearer where the allowed region ends before."""
    z = jax.random.normal(key, (chains, len(target.parameters)))
    for _ in range(12):
        bad = ~jnp.isfinite(_energies(target, z))
        if not bad.any():
            return z
        z = jnp.where(bad[:, None], z / 2, z)
    raise SpectrumError("the best fit lies where the label constraints allow nothing: there is nowhere to begin")


def _kernel(target: Target, z: Array, key: Array, warmup: int) -> tuple[Any, Callable[[Any], Any]]:
    """Return the state of one chain at z, and how it takes a step.

    NumPyro's functional interface rather than its MCMC object: the star is an argument of the compiled function, so
    that stars of one set-up share it.
    """
    begin, step = _numpyro().infer.hmc.hmc(potential_fn_gen=_potential, algo="NUTS")
    state = begin(z, warmup, dense_mass=True, model_args=(target,), rng_key=key)
    return state, partial(step, model_args=(target,))


@eqx.filter_jit
def _begin(target: Target, z: Float[Array, "chains p"], keys: Array, warmup: int) -> Any:
    return jax.vmap(lambda z, key: _kernel(target, z, key, warmup)[0])(z, keys)


@eqx.filter_jit
def _steps(
    target: Target, state: Any, warmup: int, steps: Int[Array, ""]
) -> tuple[Any, Float[Array, "chains block p"], Bool[Array, "chains block"]]:
    """Take up to BLOCK steps with every chain; returns the state, where they led, and which diverged."""
    # What the kernel keeps between steps must be made in the trace that uses it.
    _, step = _kernel(target, state.z[0], state.rng_key[0], warmup)
    chains, p = state.z.shape

    def one(i: Array, carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        state, z, diverging = carry
        state = jax.vmap(step)(state)
        return state, z.at[:, i].set(state.z), diverging.at[:, i].set(state.diverging)

    return jax.lax.fori_loop(0, steps, one, (state, jnp.zeros((chains, BLOCK, p)), jnp.zeros((chains, BLOCK), bool)))


def _physical(target: Target, z: np.ndarray, descent: Descent) -> np.ndarray:
    """Return draws (chains, draws, p) in physical units, float64."""
    parameters, problem = target.parameters, target.problem
    centre, spread = np.asarray(target.centre, np.float64), np.asarray(target.spread, np.float64)
    cube = 1 / (1 + np.exp(-(centre + z.astype(np.float64) @ spread.T)))
    n, out = len(parameters.labels), cube.copy()
    if parameters.labels.free is not None:
        out[..., :n] = parameters.labels.free.from_cube(cube[..., :n])
    low, high = np.asarray(problem.low, np.float64), np.asarray(problem.high, np.float64)
    for i, name in enumerate(parameters.names[n:], start=n):
        j = ("rv", "vsini", "broadening").index(name)
        value = low[j] + (high[j] - low[j]) * cube[..., i]
        if name == "rv":
            # Velocities add as c·ln(λ_observed/λ_rest).
            out[..., i] = SPEED_OF_LIGHT * np.tanh((log_velocity(descent.plan.rv) + value) / SPEED_OF_LIGHT)
        else:
            out[..., i] = np.sqrt(value)
    return out
