"""A TransformerPayne exported by starpayne, with NumPy alone: ``spectrum(load("model.npz"), labels, wavelength)``."""

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


def spectrum(m, labels, wavelength=None):
    """Return (channels, wavelengths) at wavelengths in Å, in the medium of the file; by default its own."""
    act, wave = ACTIVATE[str(m["activation"])], m["wavelength"] if wavelength is None else wavelength
    linear, zero, span = m["coordinate"]
    turns = ((wave if linear else np.log10(wave))[:, None] - zero) / span / m["periods"]
    x = np.sin(2 * np.pi * (turns - np.rint(turns)))
    tokens = norm(np.tensordot(act(scaled(m, labels) @ m["embed.0"]), m["embed.1"], 1))
    blocks = [m[f"block.{name}"] for name in ("query", "key", "value", "out", "up", "down")]
    branch = (len(blocks[0]) / 2) ** -0.5
    for query, key, value, out, up, down in zip(*blocks, strict=True):
        q, k = np.tensordot(norm(x), query, 1), np.tensordot(tokens, key, 1)
        weights = np.exp(np.einsum("nhk,thk->nht", q, k) / q.shape[-1])
        weights /= weights.sum(axis=-1, keepdims=True)
        attended = np.einsum("nht,thk->nhk", weights, np.tensordot(tokens, value, 1))
        x = x + branch * np.tensordot(attended, out, 2)
        x = x + branch * act(norm(x) @ up) @ down
    return m["center"] + m["width"] * (act(norm(x) @ m["head.0"]) @ m["head.1"]).T
