"""A Gaussian process exported by starpayne, with NumPy alone: ``spectrum(load("model.npz"), labels)``."""

import numpy as np


def load(path):
    return dict(np.load(path, allow_pickle=False))


def cube(m, labels):
    x, (low, high) = np.asarray(labels, float), m["bounds"].copy()
    for weights, ends in zip(m["constraint.weights"], m["constraint.ends"], strict=True):
        i = np.flatnonzero(weights)[-1]
        a, b = sorted((ends - weights[:i] @ x[:i]) / weights[i])
        low[i], high[i] = max(low[i], a), min(high[i], b)
    u = (x - low) / (high - low)
    for i in m["inverse"]:
        u[i] = (1 / x[i] - 1 / high[i]) / (1 / low[i] - 1 / high[i])
    return u


KERNELS = {
    "matern52": lambda s: (1 + np.sqrt(5 * s) + 5 / 3 * s) * np.exp(-np.sqrt(5 * s)),
    "squared_exponential": lambda s: np.exp(-0.5 * s),
}


def spectrum(m, labels):
    """Return (channels, wavelengths) at the wavelengths of the file."""
    squared = np.sum(((cube(m, labels) - m["points"]) / m["lengths"]) ** 2, axis=1)
    values = KERNELS[str(m["kernel"])](squared) @ m["amplitudes"].astype(float) @ m["components"]
    return m["center"] + m["width"] * values.reshape(m["center"].shape)
