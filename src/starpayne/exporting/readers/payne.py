"""A Payne exported by starpayne, with NumPy alone: ``spectrum(load("model.npz"), labels)``."""

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
    return x / np.sqrt(np.mean(x * x) + 1e-6)


def spectrum(m, labels):
    """Return (channels, wavelengths) at the wavelengths of the file."""
    act, last = ACTIVATE[str(m["activation"])], int(m["layers"]) - 1
    x = scaled(m, labels) - 0.5
    for i in range(last):
        if m["residual"]:
            x = (x + act(norm(x)) @ m[f"weights.{i}"] if i else x @ m["weights.0"]) + m[f"biases.{i}"]
        else:
            x = act(x @ m[f"weights.{i}"] + m[f"biases.{i}"])
    x = act(norm(x)) if m["residual"] else x
    x = x @ m[f"weights.{last}"] + m[f"biases.{last}"]
    return m["center"] + m["width"] * x.reshape(m["center"].shape)
