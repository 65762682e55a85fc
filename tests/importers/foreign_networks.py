"""Files as other codes write them, with weights drawn by NumPy: a network of The Payne, bundles of AET."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

LOW, HIGH = np.array([4000.0, 1.0, -2.0]), np.array([7000.0, 5.0, 0.5])
NAMES = ("teff", "logg", "feh")
WAVE = np.linspace(5000.0, 5010.0, 41)
LABELS = LOW + (HIGH - LOW) * np.random.default_rng(4).random((5, 3))


def payne_arrays(n_labels: int = 3, n_pixels: int = 41, hidden: int = 12, seed: int = 1) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` of The Payne, of a network that predicts fluxes near one."""
    random = np.random.default_rng(seed)
    low = LOW if n_labels == 3 else np.linspace(-1.0, 0.0, n_labels)
    high = HIGH if n_labels == 3 else low + 1
    if n_labels != 3:
        low[0], high[0] = 3.0, 8.0  # thousands of K
    return {
        "w_array_0": random.normal(size=(hidden, n_labels)).astype(np.float32),
        "w_array_1": random.normal(size=(hidden, hidden)).astype(np.float32) / 3,
        "w_array_2": 0.02 * random.normal(size=(n_pixels, hidden)).astype(np.float32),
        "b_array_0": random.normal(size=hidden).astype(np.float32),
        "b_array_1": random.normal(size=hidden).astype(np.float32),
        "b_array_2": np.full(n_pixels, 0.9, np.float32),
        "x_min": low, "x_max": high,
        "training_loss": np.zeros(3), "validation_loss": np.zeros(3),
    }  # fmt: skip


def payne_flux(arrays: dict[str, np.ndarray], labels: np.ndarray, activation: Any) -> np.ndarray:
    """The published formula, in float64."""
    x = (labels - arrays["x_min"]) / (arrays["x_max"] - arrays["x_min"]) - 0.5
    first = activation(x @ arrays["w_array_0"].T.astype(float) + arrays["b_array_0"])
    second = activation(first @ arrays["w_array_1"].T.astype(float) + arrays["b_array_1"])
    return second @ arrays["w_array_2"].T.astype(float) + arrays["b_array_2"]


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


# -- bundles of astro-emulators-toolkit -------------------------------------------------------------------------------


def mlp_weights(n_pixels: int = 41, seed: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    sizes = (3, 10, 8, n_pixels)
    weights = {}
    for i in range(3):
        weights[f"layers/{i}/kernel"] = random.normal(size=sizes[i : i + 2]).astype(np.float32) / np.sqrt(sizes[i])
        weights[f"layers/{i}/bias"] = 0.3 * random.normal(size=sizes[i + 1]).astype(np.float32)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def mlp_output(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """What AET's MLP computes of scaled labels, in float64."""
    for i in range(3):
        x = x @ weights[f"layers/{i}/kernel"].astype(float) + weights[f"layers/{i}/bias"]
        x = gelu(x) if i < 2 else x
    return x


TRANSFORMER: dict[str, Any] = {
    "activation": "gelu", "alpha_att": 1.5, "alpha_emb": 0.8, "bias_attention": False, "bias_dense": False,
    "bias_feed_forward": None, "channels": 1, "dim": 8, "dim_ff_multiplier": 3, "dim_head": 4, "dtype": "float32",
    "max_period": 30.0, "min_period": 0.03, "no_layers": 2, "no_tokens": 5, "output_activation": "linear",
    "reference_depth": 4,
}  # fmt: skip


def transformer_weights(seed: int = 3) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    d, k, heads, tokens, f = 8, 4, 2, 5, 24
    shapes: dict[str, tuple[int, ...]] = {"param_embedding/w0": (3, d), "param_embedding/w1": (d, tokens * d)}
    for i in range(2):
        shapes |= {f"attn_layers/{i}/w{name}": (d, heads, k) for name in "qkv"}
        shapes |= {f"attn_layers/{i}/wo": (heads, k, d)}
        shapes |= {f"ff_layers/{i}/in_proj/w": (d, f), f"ff_layers/{i}/out_proj/w": (f, d)}
    shapes |= {"head/proj0/w": (d, d), "head/proj1/w": (d, 1)}
    return {name: (0.4 * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def transformer_output(weights: dict[str, np.ndarray], x: np.ndarray, coordinate: np.ndarray) -> np.ndarray:
    """What AET's TransformerPayne computes of scaled labels (n, 3) and a coordinate (m,), in float64."""

    def rms(v: np.ndarray) -> np.ndarray:
        return v / np.sqrt(np.mean(v**2, axis=-1, keepdims=True) + 1e-6)

    w = {name: array.astype(float) for name, array in weights.items()}
    periods = np.logspace(np.log10(TRANSFORMER["min_period"]), np.log10(TRANSFORMER["max_period"]), 8)
    tokens = gelu(x @ w["param_embedding/w0"]) @ w["param_embedding/w1"]
    keys = rms(TRANSFORMER["alpha_emb"] * tokens.reshape(len(x), 5, 8))
    h = np.broadcast_to(np.sin(2 * np.pi * coordinate[:, None] / periods), (len(x), len(coordinate), 8))
    for i in range(2):
        q = np.einsum("bli,ihd->blhd", rms(h), w[f"attn_layers/{i}/wq"])
        k, v = (np.einsum("bti,ihd->bthd", keys, w[f"attn_layers/{i}/w{name}"]) for name in "kv")
        scores = np.exp(np.einsum("blhd,bthd->bhlt", q, k) * TRANSFORMER["alpha_att"] / 4)
        mixed = np.einsum("bhlt,bthd->blhd", scores / scores.sum(axis=-1, keepdims=True), v)
        h = h + 2 * np.einsum("blhd,hdm->blm", mixed, w[f"attn_layers/{i}/wo"])
        h = h + 2 * gelu(rms(h) @ w[f"ff_layers/{i}/in_proj/w"]) @ w[f"ff_layers/{i}/out_proj/w"]
    return (gelu(rms(h) @ w["head/proj0/w"]) @ w["head/proj1/w"])[..., 0]


def write_bundle(
    path: Path, kind: str, weights: dict[str, np.ndarray], params: dict[str, Any],
    fingerprint: tuple[dict[str, np.ndarray], np.ndarray] | None = None, **changes: Any,
) -> Path:  # fmt: skip
    """Write a folder in the layout of AET 0.1.0; ``changes`` replace blocks of the spec, or the extra wavelengths."""
    transformer = kind == "transformer_payne"
    path.mkdir(parents=True)
    spec: dict[str, Any] = {
        "spec_version": 1,
        "inputs": {
            "channel_names_tree": {"parameters": list(NAMES)},
            "structure_tree": {"parameters": None} | ({"wavelengths": None} if transformer else {}),
        },
        "reference_scaling_inputs": {
            "min_tree": {"parameters": LOW.tolist()}, "max_tree": {"parameters": HIGH.tolist()},
        },
        "reference_scaling_outputs": {"min_tree": {"flux": 0.9}, "max_tree": {"flux": 1.0}},
    }  # fmt: skip
    extra = changes.pop("wavelength", WAVE)
    spec |= changes
    metadata: dict[str, Any] = {
        "bundle_format_version": 1,
        "weights_layout": "params_plus_model_state_v1",
        "resolved": {"model": {"name": kind, "params": params}},
        "runtime_contract": {
            "role_paths": {
                "input_leaf": "inputs/parameters", "parameter_leaf": "inputs/parameters",
                "wavelength_leaf": "inputs/wavelengths", "output_leaf": "outputs/flux",
            }
        },
        "spec": spec,
        "provenance": {"toolkit": "astro_emulators_toolkit", "toolkit_version": "0.1.0"},
        "release": None,
    }  # fmt: skip
    files = ["metadata.json", "weights/weights.safetensors"]
    (path / "weights").mkdir()
    tensors = {f"params/params/core_model/{name}": array for name, array in weights.items()}
    save_file(tensors | {"params/model_state/__empty_dict__": np.zeros(1, np.int8)}, path / files[1])
    if extra is not None:
        (path / "extras").mkdir()
        files.append("extras/wavelength_angstrom.safetensors")
        save_file({"value": extra}, path / files[-1])
        sidecar = {"format": "safetensors_v1", "layout": "single_array_v1", "path": files[-1]}
        metadata["extras"] = {"wavelength_angstrom": {"__aet_sidecar__": sidecar}}
    if fingerprint is not None:
        (path / "fingerprint_evaluation").mkdir()
        names = [f"fingerprint_evaluation/{side}.safetensors" for side in ("inputs", "outputs")]
        save_file(fingerprint[0], path / names[0])
        save_file({"flux": fingerprint[1].astype(np.float32)}, path / names[1])
        files += names
        metadata["fingerprint_evaluation"] = {"inputs": {"filename": names[0]}, "outputs": {"filename": names[1]}}
    (path / "metadata.json").write_text(json.dumps(metadata, indent=2, sort_keys=True))
    return sign(path, files)


def sign(path: Path, files: list[str]) -> Path:
    """Write the manifest of checksums."""
    tree = [{"path": name, "sha256": hashlib.sha256((path / name).read_bytes()).hexdigest()} for name in sorted(files)]
    (path / "bundle_integrity.json").write_text(json.dumps({"algorithm": "sha256", "tree": tree}))
    return path
