"""A convolutional emulator exported by starpayne, with NumPy alone: ``spectrum(load("model.npz"), labels)``."""

import numpy as np


def load(path):
    return dict(np.load(path, allow_pickle=False))


FORWARD = {"linear": lambda x: x, "log10": np.log10, "inverse": lambda x: 1 / x}


def scaled(m, labels):
    x = [FORWARD[str(t)](float(v)) for t, v in zip(m["transform"], labels, strict=True)]
    return np.append((np.array(x) - m["offset"]) / m["scale"], m["held"])


ACTIVATE = {
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "squared_relu": lambda x: np.maximum(x, 0) ** 2,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def norm(x):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def spectrum(m, labels):
    """Return (channels, wavelengths) at the wavelengths of the file."""
    act, x, last = ACTIVATE[str(m["activation"])], scaled(m, labels) - 0.5, int(m["layers"]) - 1
    for i in range(last):
        x = act(x @ m[f"weights.{i}"] + m[f"biases.{i}"])
    x = (x @ m[f"weights.{last}"] + m[f"biases.{last}"]).reshape(5, -1)
    for i in range(int(m["convolutions"])):
        filters, n = m[f"filters.{i}"], len(x)
        y = np.zeros((3 * n + 8, filters.shape[2]))
        for tap in range(11):
            y[tap : tap + 3 * n : 3] += act(norm(x)) @ filters[tap]
        x = y[5 : 3 * n + 3] + m[f"filter_biases.{i}"]
    return m["center"] + m["width"] * x[: m["center"].shape[1]].T
