"""The TransformerPayne of astro-emulators-toolkit (AET) as ours: the same network, its factors inside the weights.

What differs (AET 0.1.0, against arXiv:2407.05751 as we have it): a residual branch has weight (L / reference)^-1 or
one, ours (L / 2)^-1/2; factors of the label embedding and of attention; the width of the feed-forward layer, the
activation, and what the encoding is periodic in, which is whatever its user passes as wavelength.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from starpayne.bundle import named_arrays
from starpayne.emulators import TransformerPayne
from starpayne.emulators.blocks import REFERENCE_DEPTH
from starpayne.emulators.transformer import WIDENING
from starpayne.errors import BundleError
from starpayne.importers.aet_bundle import METADATA, AetBundle, activation_of, leaf
from starpayne.importers.foreign_networks import Pixels, domain_of
from starpayne.labels import LabelSpace
from starpayne.wavelengths import SCALES, Coordinate, sampling_of

ROLE = "wavelength_leaf"
BIASES = ("bias_dense", "bias_parameter_embedding", "bias_feed_forward", "bias_output_head", "bias_attention")
ANGSTROM, LOG10 = (900.0, 1e6), (2.9, 6.0)
"""Limits that can only be in Å, and only log10 of Å."""

DEFAULTS = {
    "dim": 128, "dim_ff_multiplier": WIDENING, "no_tokens": 16, "no_layers": 8, "dim_head": 32, "channels": 1,
    "min_period": 1e-6, "max_period": 10.0, "alpha_emb": 1.0, "alpha_att": 1.0,
}  # fmt: skip
MOST_LAYERS = 1000


def transformer_of(
    bundle: AetBundle, space: LabelSpace, stated: np.ndarray | None, scale: str | None, pixels: Pixels
) -> TransformerPayne:
    """Return our TransformerPayne with the weights of AET's.

    Args:
        bundle: the folder.
        space: its labels.
        stated: (n,) Å of the spectra it was trained on, where they are known.
        scale: what it was given as wavelengths, "linear" (Å) or "log10"; None to tell it from the folder.
        pixels: medium, range, sampling and resolution.

    Raises:
        BundleError: it has biases, several channels or other layers than ours, or its wavelengths are not told.
    """
    settings = _settings(bundle)
    dim, depth, tokens, k = (int(settings[key]) for key in ("dim", "no_layers", "no_tokens", "dim_head"))
    scaling = bundle.bounds("reference_scaling_inputs", ROLE)
    limits = bundle.bounds("input_domain", ROLE)
    if limits is None and scaling is not None and np.any(scaling[0] != 0):  # 0 to 1 is no scaling, and no range
        limits = scaling
    coordinate = _coordinate(bundle, scale, scaling, limits)
    low, high = _range(bundle, stated, coordinate, limits, pixels)
    sampling = pixels.sampling or (None if stated is None else sampling_of(stated))
    if sampling is None:
        raise BundleError(
            f"{bundle.path} does not state the wavelengths it was trained on; give the sampling λ/Δλ of those spectra"
        )
    domain = domain_of(dataclasses.replace(pixels, sampling=sampling), np.array([low, high]))
    activation = activation_of(bundle)
    skeleton = eqx.filter_eval_shape(
        lambda key: TransformerPayne.initialise(
            space, domain, ("flux",), width=dim, depth=depth, tokens=tokens, head_width=k,
            periods=(settings["min_period"], settings["max_period"]),
            feed_forward=dim * int(settings["dim_ff_multiplier"]),
            activation=activation, coordinate=coordinate, key=key,
        ),
        jax.random.key(0),
    )  # fmt: skip
    arrays = _arrays(bundle, settings, len(space.inputs))
    names = named_arrays(skeleton)
    leaves = [jnp.asarray(arrays[name].astype(np.float32)) for name in names]
    structure = jax.tree_util.tree_structure(eqx.filter(skeleton, lambda x: isinstance(x, jax.ShapeDtypeStruct)))
    rest = eqx.filter(skeleton, lambda x: not isinstance(x, jax.ShapeDtypeStruct))
    return eqx.combine(jax.tree_util.tree_unflatten(structure, leaves), rest)


def _settings(bundle: AetBundle) -> dict[str, float]:
    stated = bundle.settings
    biases = [name for name in BIASES if stated.get(name)]
    if biases:
        raise BundleError(f"{bundle.path}: a TransformerPayne with biases ({', '.join(biases)}) cannot be imported")
    settings = {name: float(stated.get(name, value)) for name, value in DEFAULTS.items()}
    whole = [name for name, value in DEFAULTS.items() if isinstance(value, int) and settings[name] % 1]
    if whole or settings["channels"] != 1:
        raise BundleError(
            f"{bundle.path}: channels = {settings['channels']:g}; networks of one channel, the flux, can be imported"
        )
    if not 1 <= settings["no_layers"] <= MOST_LAYERS:
        raise BundleError(f"{bundle.path}: {settings['no_layers']:g} layers; 1 to {MOST_LAYERS} can be imported")
    return settings


def _arrays(bundle: AetBundle, settings: Mapping[str, float], n_labels: int) -> dict[str, np.ndarray]:
    """Return our arrays by name."""
    d, depth, tokens, k = (int(settings[key]) for key in ("dim", "no_layers", "no_tokens", "dim_head"))
    heads, f = d // k, d * int(settings["dim_ff_multiplier"])
    reference = bundle.settings.get("reference_depth")
    theirs = 1.0 if reference is None else float(reference) / depth
    branch = theirs / (depth / REFERENCE_DEPTH) ** -0.5

    def layers(name: str, shape: tuple[int, ...]) -> np.ndarray:
        part, _, last = name.partition("/")
        return np.stack([bundle.weight(f"{part}/{i}/{last}", shape) for i in range(depth)])

    embedding = bundle.weight("param_embedding/w1", (d, tokens * d)).reshape(d, tokens, d)
    low, high = bundle.bounds("reference_scaling_outputs", "output_leaf") or (np.zeros(()), np.ones(()))
    if low.size != 1 or not high > low:
        raise BundleError(f"{bundle.path / METADATA}: the scaling of the flux is no pair of numbers that increase")
    return {
        "embed.0": bundle.weight("param_embedding/w0", (n_labels, d)),
        "embed.1": settings["alpha_emb"] * embedding,
        "block.query": layers("attn_layers/wq", (d, heads, k)),
        "block.key": settings["alpha_att"] * layers("attn_layers/wk", (d, heads, k)),
        "block.value": layers("attn_layers/wv", (d, heads, k)),
        "block.out": branch * layers("attn_layers/wo", (heads, k, d)),
        "block.up": layers("ff_layers/in_proj/w", (d, f)),
        "block.down": branch * layers("ff_layers/out_proj/w", (f, d)),
        "head.0": bundle.weight("head/proj0/w", (d, d)),
        "head.1": bundle.weight("head/proj1/w", (d, 1)),
        "center": low.reshape(1, 1),
        "width": (high - low).reshape(1, 1),
    }


def _coordinate(
    bundle: AetBundle,
    scale: str | None,
    scaling: tuple[np.ndarray, np.ndarray] | None,
    limits: tuple[np.ndarray, np.ndarray] | None,
) -> Coordinate:
    """Return what the encoding is periodic in."""
    if scale is None:
        scale = _scale_of(bundle, limits)
    if scale not in SCALES:
        raise BundleError(f"wavelength_scale = {scale!r} is not known; choose one of {', '.join(SCALES)}")
    if scaling is None:
        return Coordinate(scale)
    if scaling[0].size != 1:
        raise BundleError(f"{bundle.path / METADATA}: the scaling of the wavelengths is no pair of numbers")
    zero, one = (float(x.ravel()[0]) for x in scaling)
    return Coordinate(scale, zero, one - zero)


def _scale_of(bundle: AetBundle, limits: tuple[np.ndarray, np.ndarray] | None) -> str:
    """Tell from the unit or the limits that a folder states whether its wavelengths are λ or log10 λ."""
    unit = leaf(leaf(bundle.spec, "inputs/leaf_units_tree"), bundle.role(ROLE))
    if isinstance(unit, str):
        plain = unit.strip().lower().replace(" ", "")
        if plain in ("angstrom", "angstroms", "å", "aa"):
            return "linear"
        if plain in ("log10(angstrom)", "log10(å)", "log10angstrom", "log10(aa)", "log10(wavelength/angstrom)"):
            return "log10"
    if limits is not None:
        low, high = float(np.min(limits[0])), float(np.max(limits[1]))
        for scale, (lowest, highest) in (("linear", ANGSTROM), ("log10", LOG10)):
            if lowest <= low < high <= highest:
                return scale
    raise BundleError(
        f"{bundle.path} does not say whether its network takes wavelengths in Å or their log10; give "
        "wavelength_scale = 'linear' or 'log10'"
    )


def _range(
    bundle: AetBundle,
    stated: np.ndarray | None,
    coordinate: Coordinate,
    limits: tuple[np.ndarray, np.ndarray] | None,
    pixels: Pixels,
) -> tuple[float, float]:
    """Return the range in Å: as given, or of the wavelengths that are stated, or of the limits of the folder."""
    found = None
    if stated is not None:
        found = float(stated[0]), float(stated[-1])
    elif limits is not None:
        ends = Coordinate(coordinate.scale).wavelength(np.array([np.min(limits[0]), np.max(limits[1])]))
        found = float(ends[0]), float(ends[1])
    low = pixels.low if pixels.low is not None or found is None else found[0]
    high = pixels.high if pixels.high is not None or found is None else found[1]
    if low is None or high is None:
        raise BundleError(f"{bundle.path} does not state the range of its wavelengths; give low and high in Å")
    if found is not None and not found[0] - 1e-6 <= low < high <= found[1] + 1e-6:
        raise BundleError(
            f"{bundle.path}: {low:g} to {high:g} Å is no part of the {found[0]:.2f} to {found[1]:.2f} Å that it was "
            "trained on"
        )
    return low, high
