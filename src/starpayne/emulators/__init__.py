"""Emulators: labels and wavelength → normalised flux (or intensity), behind one contract."""

from starpayne.emulators.adapt import Target, adapted, learned_arrays
from starpayne.emulators.additive import AdditivePayne
from starpayne.emulators.base import CHANNELS, BoundEmulator, Emulator, Prediction
from starpayne.emulators.convolutional import Convolutional
from starpayne.emulators.corrected import Corrected
from starpayne.emulators.disc import Quadrature, disc_flux, disc_quadrature
from starpayne.emulators.domain import QUANTITIES, SpectralDomain
from starpayne.emulators.flags import FLAGS, flags_for, flags_of
from starpayne.emulators.gaussian_process import GaussianProcess
from starpayne.emulators.low_rank import LowRank, fresh_low_rank, merged
from starpayne.emulators.payne import Payne
from starpayne.emulators.polynomial import Polynomial
from starpayne.emulators.registry import PLAIN
from starpayne.emulators.transformer import TransformerPayne
from starpayne.errors import BundleError

ARCHITECTURES: dict[str, type[Emulator]] = {**PLAIN, Corrected.architecture: Corrected}


def architecture(name: str) -> type[Emulator]:
    """Return the emulator class of an architecture name; BundleError lists the known ones."""
    if name not in ARCHITECTURES:
        raise BundleError(f"unknown architecture {name!r}; this starpayne knows {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


__all__ = [
    "ARCHITECTURES",
    "CHANNELS",
    "AdditivePayne",
    "BoundEmulator",
    "Convolutional",
    "Corrected",
    "Emulator",
    "FLAGS",
    "GaussianProcess",
    "LowRank",
    "Payne",
    "Polynomial",
    "Prediction",
    "QUANTITIES",
    "Quadrature",
    "SpectralDomain",
    "Target",
    "TransformerPayne",
    "adapted",
    "architecture",
    "disc_flux",
    "disc_quadrature",
    "flags_for",
    "flags_of",
    "fresh_low_rank",
    "learned_arrays",
    "merged",
]
