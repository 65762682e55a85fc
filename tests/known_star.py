"""A small emulator that a fit can be tested with, its labels, the star observed with it, and the spectrograph."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from starpayne.bundle import Model
from starpayne.emulators import Payne, SpectralDomain
from starpayne.labels import Constraint, Label, LabelSpace
from starpayne.wavelengths import log_grid

SPACE = LabelSpace(
    (
        Label("teff", 4500.0, 7000.0),
        Label("logg", 1.0, 5.0),
        Label("feh", -1.0, 0.5),
        Label("alpha_fe", -0.1, 0.5),
        Label("mg_fe", -0.5, 0.9),
    ),
    (Constraint({"mg_fe": 1.0, "alpha_fe": -1.0}, -0.4, 0.4),),
)
TRUTH = np.array([5600.0, 3.6, -0.2, 0.15, 0.3])
RESOLUTION = 20_000.0


def model() -> Model:
    """A Payne whose last layer is solved by least squares on random features."""
    random = np.random.default_rng(11)
    wavelength = log_grid(5000.0, 5060.0, 60_000.0)
    labels = SPACE.from_cube(random.random((400, len(SPACE))))
    u = SPACE.scale(labels)
    flux = np.ones((len(labels), len(wavelength)))
    for centre in random.uniform(5001, 5059, 30):
        strength = 0.35 + 0.35 * np.tanh(u @ random.normal(0, 1.5, len(SPACE)) - 0.5)
        flux -= strength[:, None] * np.exp(-(((wavelength - centre) / random.uniform(0.16, 0.35)) ** 2))
    domain = SpectralDomain(wavelength[0], wavelength[-1], "air", 60_000.0, None, ("no_molecules",))
    payne = Payne.initialise(
        SPACE, domain, ("flux",), wavelength, hidden=(64,), activation="gelu", key=jax.random.key(3)
    )
    hidden = np.asarray(jax.nn.gelu(jnp.asarray(u - 0.5, jnp.float32) @ (4 * payne.weights[0]) + payne.biases[0]))
    design = np.hstack([hidden, np.ones((len(hidden), 1))]).astype(np.float64)
    last = np.linalg.solve(design.T @ design + 1e-4 * np.eye(65), design.T @ flux)
    payne = eqx.tree_at(
        lambda p: (p.weights, p.biases),
        payne,
        (
            (4 * payne.weights[0], jnp.asarray(last[:-1], jnp.float32)),
            (payne.biases[0], jnp.asarray(last[-1], jnp.float32)),
        ),
    )
    return Model(payne)
