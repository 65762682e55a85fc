"""Whether an imported network computes the spectrum that astro-emulators-toolkit (AET) stored beside it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from starpayne.emulators import Emulator, Payne, TransformerPayne
from starpayne.errors import BundleError
from starpayne.importers.aet_bundle import AetBundle


def fingerprint_difference(bundle: AetBundle, emulator: Emulator, wavelength: np.ndarray | None) -> float | None:
    """Return by how much the flux here differs from the stored one; None where the folder has no fingerprint.

    Args:
        bundle: the folder.
        emulator: what was made of it.
        wavelength: (n,) Å of the outputs of an MLP.

    Raises:
        BundleError: it differs by more than another machine's arithmetic can make of it, or does not fit the model.
    """
    stored = bundle.fingerprint()
    if stored is None:
        return None
    inputs, outputs = stored
    try:
        role = "parameter_leaf" if isinstance(emulator, TransformerPayne) else "input_leaf"
        canonical, network = inputs[bundle.role(role)], np.ravel(outputs[bundle.role("output_leaf")])
        labels = jnp.asarray(emulator.space.unscale(np.reshape(canonical, (1, -1))), jnp.float32)
        center, width = np.asarray(emulator.center[0]), np.asarray(emulator.width[0])
        if isinstance(emulator, TransformerPayne):
            own = emulator.coordinate.wavelength(np.ravel(inputs[bundle.role("wavelength_leaf")]))
            found = np.asarray(emulator.bind(own).batch(labels))[0, 0]
        elif isinstance(emulator, Payne) and wavelength is not None:
            native = emulator.native_wavelength
            here, there = np.isin(native, wavelength), np.isin(wavelength, native)
            found = np.asarray(emulator.bind(native).batch(labels))[0, 0, here]
            network, center, width = network[there], center[here], width[here]
        else:
            raise KeyError(emulator.architecture)
        if found.shape != network.shape:
            raise ValueError(f"{network.size} values are stored, and the network gives {found.size}")
        difference = float(np.max(np.abs(found - (center + width * network))))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise BundleError(f"{bundle.path}: its fingerprint does not fit its description: {error}") from error
    if not difference <= emulator.rounding:
        raise BundleError(
            f"{bundle.path} does not reproduce its fingerprint: the flux differs by {difference:.1e} "
            f"(allowed {emulator.rounding:.0e})"
        )
    return difference
