"""The networks and closed forms by the names under which they are stored."""

from __future__ import annotations

from starpayne.emulators.additive import AdditivePayne
from starpayne.emulators.base import Emulator
from starpayne.emulators.convolutional import Convolutional
from starpayne.emulators.gaussian_process import GaussianProcess
from starpayne.emulators.payne import Payne
from starpayne.emulators.polynomial import Polynomial
from starpayne.emulators.transformer import TransformerPayne

PLAIN: dict[str, type[Emulator]] = {
    cls.architecture: cls
    for cls in (Payne, TransformerPayne, Convolutional, AdditivePayne, Polynomial, GaussianProcess)
}
"""Emulators that stand alone: what a :class:`~starpayne.emulators.corrected.Corrected` may have as its base."""
