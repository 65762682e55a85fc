"""Gaussian processes: the textbook mean, exact derivatives, and the error they are known to reach."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne.emulators import GaussianProcess
from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.emulators.gaussian_process import KERNELS, matern52
from starpayne.errors import RecipeError, TrainingError
from starpayne.grid import Grid
from starpayne.training import GaussianProcessArchitecture, Recipe, TrainingData, closed_form, train
from starpayne.training.closed_form import principal_components
from starpayne.training.marginal_likelihood import _negative_log_likelihood, covariance, maximise_likelihood

EACH_KERNEL = pytest.mark.parametrize("kernel", sorted(KERNELS))


def textbook(kernel: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The kernel between scaled points, written without any shortcut."""
    r = np.sqrt(np.sum((x[:, None] - y[None]) ** 2, axis=-1))
    if kernel == "squared_exponential":
        return np.exp(-(r**2) / 2)
    return (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)


@EACH_KERNEL
def test_it_predicts_the_mean_of_the_textbook(kernel: str, tmp_path: Path) -> None:
    data = toy.data()
    model = train(data, Recipe(architecture=GaussianProcessArchitecture(kernel)), tmp_path / "m")
    emulator, chosen = model.emulator, model.training["chosen"]
    assert isinstance(emulator, GaussianProcess)
    lengths = np.array([chosen[f"length_{name}"] for name in toy.SPACE.names])
    x, new = (smooth_coordinates(toy.SPACE, v) / lengths for v in (data.labels, data.validation_labels))
    flux = data.targets[:, 0].astype(float)
    matrix = textbook(kernel, x, x) + chosen["noise"] * np.eye(len(x))
    expected = flux.mean(0) + textbook(kernel, new, x) @ np.linalg.solve(matrix, flux - flux.mean(0))
    # float32, and the components that were left out.
    np.testing.assert_allclose(emulator.predict(data.validation_labels).flux, expected, rtol=0, atol=1e-4)


@EACH_KERNEL
def test_it_goes_through_its_training_spectra(kernel: str, tmp_path: Path) -> None:
    data = toy.data()
    model = train(data, Recipe(architecture=GaussianProcessArchitecture(kernel)), tmp_path / "m")
    mae = np.mean(np.abs(model.emulator.predict(data.labels).flux - data.targets[:, 0]))
    # Not exactly: it is told to expect noise, of a variance 1e-5 of that of the process.
    assert mae < 0.01 * np.std(data.targets - data.targets.mean(0))
    assert mae < 0.4 * model.validation["mae"]


@EACH_KERNEL
def test_the_likelihood_has_the_gradient_that_finite_differences_have(kernel: str) -> None:
    random = np.random.default_rng(0)
    x = random.random((30, 3))
    y = np.sin(x @ random.normal(size=(3, 5)))
    parameters = np.log([1.0, 0.7, 2.0, 1e-3])
    _, gradient = _negative_log_likelihood(kernel, parameters, x, y)
    for i, step in enumerate(1e-5 * np.eye(4)):
        ends = [_negative_log_likelihood(kernel, parameters + sign * step, x, y)[0] for sign in (1, -1)]
        assert gradient[i] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


def test_the_likelihood_finds_the_lengths_of_a_process_drawn_from_it() -> None:
    random = np.random.default_rng(4)
    x, lengths = random.random((150, 2)), np.array([0.3, 1.2])
    matrix = covariance("matern52", x / lengths, x / lengths) + 1e-3 * np.eye(150)
    y = np.linalg.cholesky(matrix) @ random.normal(size=(150, 40))
    found = maximise_likelihood("matern52", x, y, 1e-8)
    np.testing.assert_allclose(found.lengths, lengths, rtol=0.1)
    assert found.noise == pytest.approx(1e-3, rel=0.2)


def test_both_derivatives_of_the_kernel_are_exact_at_its_centre_and_beyond() -> None:
    for s in (0.0, 1e-8, 0.3, 4.0):
        root = np.sqrt(5 * s)
        slope = -5 / 6 * (1 + root) * np.exp(-root)
        assert float(jax.grad(matern52)(jnp.float32(s))) == pytest.approx(slope, rel=1e-5)
        assert float(jax.grad(jax.grad(matern52))(jnp.float32(s))) == pytest.approx(25 / 12 * np.exp(-root), rel=1e-4)


def test_the_derivative_at_a_training_spectrum_is_finite(gaussian_process_model) -> None:
    labels = jnp.asarray(toy.data().labels[0], jnp.float32)
    assert np.all(np.isfinite(jax.jit(jax.jacfwd(gaussian_process_model.emulator.on()))(labels)))


def test_components_leave_out_a_billionth_of_the_variance() -> None:
    values = np.random.default_rng(0).normal(size=(30, 8)) @ np.diag(10.0 ** -np.arange(8))
    scores, components = principal_components(values)
    left = np.sum((values - scores @ components) ** 2) / np.sum(values**2)
    assert scores.shape[1] < 8
    assert left <= 1e-9


def test_the_seed_draws_the_spectra_of_the_likelihood(tmp_path: Path) -> None:
    recipe = Recipe(architecture=GaussianProcessArchitecture(likelihood_spectra=20))
    one, same, other = (
        train(toy.data(), recipe.replace(seed=seed), tmp_path / name) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert toy.same_weights(one, same)
    assert not toy.same_weights(one, other)


def test_too_many_spectra_are_refused(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(closed_form, "MAX_SPECTRA", 30)
    with pytest.raises(
        TrainingError, match=r"^a Gaussian process of 40 spectra would take .* the most is 30: take fewer"
    ):
        train(toy.data(), toy.recipe("gaussian_process"), tmp_path / "m")


@pytest.mark.parametrize("emulator", ["polynomial", "gaussian_process"])
def test_spectra_that_cannot_be_solved_for_are_refused(emulator: str, tmp_path: Path) -> None:
    data = toy.data()
    data.targets[3, 0, 7] = np.nan
    with pytest.raises(TrainingError, match=r"^the training spectra hold values that are not finite; check the grid$"):
        train(data, toy.recipe(emulator), tmp_path / "m")
    data.targets[:] = 0.9
    with pytest.raises(TrainingError, match=r"^the training spectra are all the same; check the grid$"):
        train(data, toy.recipe(emulator), tmp_path / "m")


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"kernel 'rbf' is not known; choose one of matern52, squared_exponential"):
        GaussianProcess.initialise(
            toy.SPACE, toy.domain(), ("flux",), toy.WAVELENGTH, kernel="rbf", spectra=3, components=2
        )


@pytest.mark.parametrize(("n_train", "error"), [(100, 0.0005), (800, 0.00014)])
def test_it_reaches_the_error_known_on_korg_flux(n_train: int, error: float, korg_grid: Grid, tmp_path: Path) -> None:
    data = TrainingData.from_grid(korg_grid, n_train)
    model = train(data, Recipe.preset("gaussian_process_se"), tmp_path / "m")
    test = list(korg_grid.split.test)
    assert np.mean(np.abs(model.emulator.predict(korg_grid.labels[test]).flux - korg_grid.flux(test))) < error
