"""An additive emulator exported by starpayne, with NumPy alone: ``spectrum(load("model.npz"), labels)``."""

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


def spectrum(m, labels):
    """Return (channels, wavelengths) at the wavelengths of the file."""
    act, x, own = ACTIVATE[str(m["activation"])], scaled(m, labels) - 0.5, m["own"]
    latents = act(x @ m["latent.0"] + m["latent_bias"]) @ m["latent.1"]
    hidden = np.append(np.delete(x, own), latents)[None]
    if len(own):
        single = np.append(0, x[own])[:, None]
        hidden = np.hstack([np.repeat(hidden, len(single), axis=0), single])
    for i in range(int(m["layers"])):
        hidden = act(np.einsum("gi,gio->go", hidden, m[f"weights.{i}"]) + m[f"biases.{i}"])
    outputs = hidden.ravel() @ m["readout"] + m["readout_bias"]
    outputs = m["center"] + m["width"] * outputs.reshape(m["center"].shape)
    return np.vstack([np.exp(-outputs[:1]), outputs[1:]])
