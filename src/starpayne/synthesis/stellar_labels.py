"""What every engine asks of stellar labels: none unknown, none missing, all within reach of the model atmospheres."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from starpayne.errors import LabelError
from starpayne.labels import LabelSpace
from starpayne.synthesis.abundances import PARAMETERS, unknown_label
from starpayne.synthesis.atmospheres import ATMOSNET_RANGES, ModelAtmosphere, check_atmosnet, check_atmosnet_space
from starpayne.synthesis.elements import element_of

DEFAULTS = {"feh": 0.0, "alpha_fe": 0.0, "vmic": 1.0}
"""Values of labels that are neither labels of the grid nor fixed."""


@dataclass(frozen=True)
class StellarLabels:
    """The labels an engine knows.

    Args:
        solar: A(X) of the Sun by element symbol; abundance labels are of these elements.
        fixed: labels held constant by the engine's settings.
    """

    solar: Mapping[str, float]
    fixed: Mapping[str, float]

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Raise LabelError for the first name that is neither a parameter nor an element."""
        for name in names:
            if name not in PARAMETERS and element_of(name) not in self.solar:
                raise LabelError(unknown_label(name, self.solar))

    def complete(self, labels: Mapping[str, float], model: ModelAtmosphere | None = None) -> dict[str, float]:
        """Return the labels with fixed and default ones filled in, checked.

        Args:
            labels: physical units.
            model: a model atmosphere to use, whose own parameters stand where the labels do not say.

        Raises:
            LabelError: unknown, missing, not finite, or out of range.
        """
        self.refuse_unknown(labels)
        of_model = {name: float(getattr(model, name)) for name in ATMOSNET_RANGES} if model else {}
        complete = {**DEFAULTS, **of_model, **self.fixed, **{k: float(v) for k, v in labels.items()}}
        missing = [name for name in ("teff", "logg") if name not in complete]
        if missing:
            raise LabelError(f"missing labels: {', '.join(missing)}; give them as labels or as fixed engine settings")
        for name, value in complete.items():
            if not np.isfinite(value):
                raise LabelError(f"{name} = {value} is not a finite number")
        if model is None:
            check_atmosnet(complete)
        if complete["vmic"] < 0:
            raise LabelError(f"vmic = {complete['vmic']:g} km/s is negative")
        return complete

    def check(self, space: LabelSpace) -> None:
        """Refuse labels and ranges that no spectrum can be made of, before anything runs.

        Raises:
            LabelError: for unknown label names, a label that is also fixed, missing teff or logg, and bounds beyond the
                model atmospheres.
        """
        self.refuse_unknown(space.names)
        for name in space.names:
            if name in self.fixed:
                raise LabelError(f"{name} is both a label of the design and fixed in the engine settings; keep one")
        self.complete({label.name: label.low for label in space.labels})
        check_atmosnet_space(space)
        if "vmic" in space.names and space["vmic"].low < 0:
            raise LabelError(f"label vmic: low = {space['vmic'].low:g} km/s is negative")
