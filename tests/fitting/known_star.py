"""Labels of the small emulator of these tests, the star that they observe with it, and the spectrograph."""

from __future__ import annotations

import numpy as np

from starpayne.labels import Constraint, Label, LabelSpace

SPACE = LabelSpace(
    (
        Label("teff", 4500.0, 7000.0),
        Label("logg", 1.0, 5.0),
        Label("feh", -1.0, 0.5),
        Label("alpha_fe", -0.1, 0.5),
        Label("mg_fe", -0.5, 0.9),
    ),
    (Constraint({"mg_fe": 1.0, "alpha_fe": -1.0}, -0.4, 0.4),),
)
TRUTH = np.array([5600.0, 3.6, -0.2, 0.15, 0.3])
RESOLUTION = 20_000.0
