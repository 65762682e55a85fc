"""A polynomial emulator exported by starpayne, with NumPy alone: ``spectrum(load("model.npz"), labels)``."""

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


def spectrum(m, labels):
    """Return (channels, wavelengths) at the wavelengths of the file."""
    degrees = m["degrees"]
    table = np.polynomial.legendre.legvander(2 * cube(m, labels) - 1, int(degrees.max()))
    table = table * np.sqrt(2 * np.arange(table.shape[1]) + 1)
    terms = np.prod(table[np.arange(len(table)), degrees], axis=1)
    return m["center"] + m["width"] * (terms @ m["coefficients"]).reshape(m["center"].shape)
