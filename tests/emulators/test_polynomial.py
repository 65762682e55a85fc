"""Polynomials: the same as least squares in plain powers, and refused where they cannot be determined."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne.emulators import Polynomial
from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.emulators.polynomial import count_terms, terms
from starpayne.errors import RecipeError, TrainingError
from starpayne.training import PolynomialArchitecture, Recipe, train
from starpayne.training.least_squares import ridge_regression


def powers(cube: np.ndarray) -> np.ndarray:
    """1, x_i and x_i x_j: what The Cannon is usually written in."""
    n, d = cube.shape
    columns = [np.ones(n), *cube.T, *(cube[:, i] * cube[:, j] for i in range(d) for j in range(i, d))]
    return np.stack(columns, axis=1)


def test_without_a_ridge_it_is_the_least_squares_quadratic(tmp_path: Path) -> None:
    data = toy.data()
    model = train(data, Recipe(architecture=PolynomialArchitecture(2, 0.0)), tmp_path / "m")
    cube, new = (smooth_coordinates(toy.SPACE, x) for x in (data.labels, data.validation_labels))
    solution = np.linalg.lstsq(powers(cube), data.targets[:, 0].astype(float), rcond=None)[0]
    predicted = model.emulator.predict(data.validation_labels).flux
    np.testing.assert_allclose(predicted, powers(new) @ solution, rtol=0, atol=2e-6)
    assert model.training["chosen"] == {"ridge": 0.0}


def test_a_polynomial_is_recovered_to_float32(tmp_path: Path) -> None:
    labels = toy.labels(300, seed=2)
    cube = smooth_coordinates(toy.SPACE, labels)
    flux = 0.9 + 0.1 * cube[:, :1] ** 3 * cube[:, 1:2] - 0.3 * cube[:, 2:3] * np.linspace(0, 1, 40)
    data = toy.data(
        labels=labels[:250], targets=flux[:250, None].astype(np.float32), validation_labels=labels[250:],
        validation_targets=flux[250:, None].astype(np.float32),
    )  # fmt: skip
    model = train(data, Recipe(architecture=PolynomialArchitecture(4)), tmp_path / "m")
    assert model.validation["mae"] < 3e-7


def test_the_basis_is_orthonormal_on_the_cube_and_complete() -> None:
    cube = np.random.default_rng(1).random((40000, 3))
    basis = terms(cube, 3)
    assert basis.shape == (40000, count_terms(3, 3))
    np.testing.assert_allclose(basis.T @ basis / len(cube), np.eye(20), atol=0.08)
    np.testing.assert_allclose(terms(jnp.asarray(cube[:50], jnp.float32), 3), basis[:50], atol=1e-5)


def test_cross_validation_takes_no_ridge_without_noise_and_a_large_one_for_nothing_but_noise() -> None:
    random = np.random.default_rng(3)
    design = random.normal(size=(60, 20))
    truth = random.normal(size=(20, 5))
    found, ridge = ridge_regression(design, design @ truth, None)
    assert ridge <= 1e-6
    np.testing.assert_allclose(found, truth, atol=1e-6)
    assert ridge_regression(design, random.normal(size=(60, 400)), None)[1] > 30
    given, ridge = ridge_regression(design, design @ truth, 2.0)
    assert ridge == 2.0
    expected = np.linalg.solve(design.T @ design + 2 * np.eye(20), design.T @ (design @ truth))
    np.testing.assert_allclose(given, expected, atol=1e-10)


def test_more_terms_than_spectra_are_refused(tmp_path: Path) -> None:
    text = (
        r"^a polynomial of degree 3 in 5 labels has 56 terms, more than the 40 training spectra; "
        r"lower degree \(now 3\), or take more spectra$"
    )
    with pytest.raises(TrainingError, match=text):
        train(toy.data(), Recipe(architecture=PolynomialArchitecture(3)), tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("degree", "text"),
    [
        (0, r"degree = 0 is outside the range 1 to 20"),
        (20, r"degree = 20 in 5 labels has 53,130 terms, more than 50,000"),
    ],
)
def test_an_impossible_degree_is_refused(degree: int, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Polynomial.initialise(toy.SPACE, toy.domain(), ("flux",), toy.WAVELENGTH, degree=degree)
