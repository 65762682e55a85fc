"""Emulators that are solved for rather than trained step by step: polynomials and Gaussian processes.

Everything is solved in float64 on the host and stored in float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from starpayne import bundle
from starpayne.emulators import Emulator, GaussianProcess, Polynomial
from starpayne.emulators.base import predict_in_chunks
from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.emulators.polynomial import count_terms, terms
from starpayne.errors import TrainingError
from starpayne.training.architectures import GaussianProcessArchitecture, PolynomialArchitecture
from starpayne.training.build import channel_scale, output_scaling
from starpayne.training.data import TrainingData
from starpayne.training.least_squares import ridge_regression
from starpayne.training.marginal_likelihood import covariance, maximise_likelihood
from starpayne.training.recipe import Recipe
from starpayne.training.result import validated_model

LEFT_OUT = 1e-9
"""Fraction of the variance that principal components may leave out."""

MAX_SPECTRA = 12_000
"""Most spectra of a Gaussian process: the solution takes 8 n² bytes three times over, and n³/3 operations."""

Progress = Callable[[int, int, Mapping[str, float]], None]


def solve_and_save(
    data: TrainingData, recipe: Recipe, path: Path, identity: Mapping[str, Any], progress: Progress | None
) -> bundle.Model:
    """Solve for an emulator and write its model folder."""
    clock = time.monotonic()
    emulator, chosen = solve(data, recipe, progress)
    predicted = predict_in_chunks(emulator, data.validation_labels, data.wavelength)[:, 0]
    facts = {"history": [], "chosen": chosen, "seconds": time.monotonic() - clock}
    model = validated_model(emulator, data, predicted, {"identity": dict(identity), **facts})
    bundle.save(model, path, overwrite=True)
    if progress is not None:
        progress(1, 1, {"validation_mae": model.validation["mae"]})
    return model


def solve(data: TrainingData, recipe: Recipe, progress: Progress | None = None) -> tuple[Emulator, dict[str, float]]:
    """Return the emulator that a closed-form recipe describes, and what was chosen on the way.

    Args:
        data: the spectra; those for validation are not looked at.
        recipe: with the architecture of a polynomial or a Gaussian process.
        progress: called as ``progress(done, most, {"loss": …})`` at each evaluation of a likelihood.

    Raises:
        TrainingError: too few spectra for the terms, too many for a Gaussian process, or spectra that are not finite.
    """
    if not np.all(np.isfinite(data.targets)):
        raise TrainingError("the training spectra hold values that are not finite; check the grid")
    if not np.any(np.ptp(data.targets, axis=0)):
        raise TrainingError("the training spectra are all the same; check the grid")
    settings = recipe.architecture
    if isinstance(settings, PolynomialArchitecture):
        return _polynomial(data, recipe, settings)
    if isinstance(settings, GaussianProcessArchitecture):
        return _gaussian_process(data, recipe, settings, progress)
    raise TrainingError(f"a {recipe.emulator} has no closed form")


def _polynomial(
    data: TrainingData, recipe: Recipe, settings: PolynomialArchitecture
) -> tuple[Polynomial, dict[str, float]]:
    n, n_terms = len(data.labels), count_terms(len(data.space), settings.degree)
    if n_terms > n:
        raise TrainingError(
            f"a polynomial of degree {settings.degree} in {len(data.space)} labels has {n_terms:,} terms, more than "
            f"the {n:,} training spectra; lower degree (now {settings.degree}), or take more spectra"
        )
    emulator = Polynomial.initialise(data.space, data.domain, data.channels, data.wavelength, degree=settings.degree)
    center, width = output_scaling(data.targets, recipe)
    outputs = ((data.targets - center) / width).reshape(n, -1)
    design = terms(smooth_coordinates(data.space, data.labels), settings.degree)
    coefficients, ridge = ridge_regression(design, outputs, settings.ridge)
    values = _float32(coefficients), _float32(center), _float32(width)
    return eqx.tree_at(lambda e: (e.coefficients, e.center, e.width), emulator, values), {"ridge": ridge}


def _gaussian_process(
    data: TrainingData, recipe: Recipe, settings: GaussianProcessArchitecture, progress: Progress | None
) -> tuple[GaussianProcess, dict[str, float]]:
    from scipy.linalg import cho_factor, cho_solve

    n = len(data.labels)
    if n > MAX_SPECTRA:
        raise TrainingError(
            f"a Gaussian process of {n:,} spectra would take {24 * n**2 / 2**30:.0f} GiB; "
            f"the most is {MAX_SPECTRA:,}: take fewer (--n-train), or another emulator"
        )
    center, width = output_scaling(data.targets, recipe)
    # The kernel is shared by all pixels, each in its own flux: weak pixels then cannot outvote strong ones.
    outputs = ((data.targets - center) * channel_scale(data)).reshape(n, -1)
    scores, components = principal_components(outputs)
    # Rounded as they will be stored before anything is solved for them: the amplitudes cancel to many digits.
    points = _rounded(smooth_coordinates(data.space, data.labels))
    rows = np.arange(n)
    if n > settings.likelihood_spectra:
        rows = np.sort(np.random.default_rng(recipe.seed).choice(n, settings.likelihood_spectra, replace=False))
    found = maximise_likelihood(
        settings.kernel, points[rows], scores[rows], settings.least_noise, settings.iterations,
        None if progress is None else lambda done, most, value: progress(min(done, most), most, {"loss": value}),
    )  # fmt: skip
    lengths = _rounded(found.lengths)
    scaled = points / lengths
    matrix = covariance(settings.kernel, scaled, scaled)
    matrix[np.diag_indices(n)] += found.noise
    amplitudes = cho_solve(cho_factor(matrix, lower=True, overwrite_a=True), scores)
    shape = (len(data.channels), len(data.wavelength))
    unscaled = components.reshape(-1, *shape) / (channel_scale(data) * width)
    emulator = GaussianProcess.initialise(
        data.space, data.domain, data.channels, data.wavelength,
        kernel=settings.kernel, spectra=n, components=len(components),
    )  # fmt: skip
    values = (points, lengths, amplitudes, unscaled.reshape(len(components), -1), center, width)
    emulator = eqx.tree_at(
        lambda e: (e.points, e.lengths, e.amplitudes, e.components, e.center, e.width),
        emulator,
        tuple(_float32(value) for value in values),
    )
    chosen = {f"length_{name}": float(x) for name, x in zip(data.space.names, lengths, strict=True)}
    return emulator, {**chosen, "noise": found.noise, "evaluations": found.evaluations}


def principal_components(
    values: Float[np.ndarray, "n m"],
) -> tuple[Float[np.ndarray, "n components"], Float[np.ndarray, "components m"]]:
    """Return scores and components whose product is the values but for ``LEFT_OUT`` of their variance."""
    left, singular, right = np.linalg.svd(values, full_matrices=False)
    missing = 1 - np.cumsum(singular**2) / np.sum(singular**2)
    k = 1 + int(np.searchsorted(-missing, -LEFT_OUT))
    return left[:, :k] * singular[:k], right[:k]


def _float32(values: np.ndarray) -> jnp.ndarray:
    return jnp.asarray(values, jnp.float32)


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)
