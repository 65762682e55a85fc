"""What every training ends with: the model, validated in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from starpayne import bundle
from starpayne.emulators import Emulator
from starpayne.training.data import TrainingData
from starpayne.training.optimizer import trainable


def validated_model(
    emulator: Emulator,
    data: TrainingData,
    predicted: Float[np.ndarray, "n_validation wavelengths"],
    facts: Mapping[str, Any],
) -> bundle.Model:
    """Return the model of an emulator with the statistics of its validation residuals.

    Args:
        emulator: trained or solved for.
        data: what it was made from.
        predicted: its flux for the validation labels.
        facts: of the training: ``identity``, ``history``, ``seconds``, and what else is to be kept.
    """
    residual = predicted - data.validation_targets[:, 0]
    learned = [
        x for x, kept in zip(*map(jax.tree_util.tree_leaves, (emulator, trainable(emulator))), strict=True) if kept
    ]
    return bundle.Model(
        emulator=emulator,
        residuals=bundle.Residuals.from_validation(
            data.wavelength, residual, space=emulator.space, labels=data.validation_labels
        ),
        training={
            "split": dict(data.split),
            "source": dict(data.source),
            "hardware": jax.devices()[0].device_kind,
            "parameters": sum(x.size for x in learned),
            **facts,
        },
        validation={
            "mae": float(np.mean(np.abs(residual))),
            "rmse": float(np.sqrt(np.mean(residual**2))),
            "n_spectra": len(residual),
        },
    )
