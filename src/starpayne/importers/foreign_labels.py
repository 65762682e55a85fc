"""The label table of a network that states the minima and maxima of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from starpayne.errors import BundleError
from starpayne.importers.names import HOT, canonical
from starpayne.labels import Label, LabelSpace

LOGARITHMIC = ("logteff", "log_teff", "log10_teff", "log10teff", "log10(teff)")
"""A temperature given as its logarithm: the label is Teff on a log10 scale, which is the same network."""

UNITS = {"vmac": "km/s"}


def label_space(
    names: Sequence[str],
    low: np.ndarray,
    high: np.ndarray,
    scale: tuple[np.ndarray, np.ndarray] | None = None,
    where: str = "",
) -> LabelSpace:
    """Return the label table of a network.

    Args:
        names: in the order of its inputs, as spelt by whoever made it.
        low, high: (n,) bounds in its own units.
        scale: (n,) values that it takes as 0 and 1, where these are not the bounds.
        where: what is read, for the errors.

    Raises:
        BundleError: another number of names than of bounds, bounds that do not increase, or a name twice.
        LabelError: a name that cannot be one.
    """
    if not len(names) == len(low) == len(high):
        raise BundleError(f"{where}: {len(names)} label names were given, and the network has {len(low)} labels")
    labels = []
    zero, one = (low, high) if scale is None else scale
    for i, given in enumerate(names):
        name, spelt = starpayne_name(given), given.strip().lower()
        if not (np.isfinite([low[i], high[i], zero[i], one[i]]).all() and low[i] < high[i] and zero[i] < one[i]):
            raise BundleError(
                f"{where}: the label {given} runs from {low[i]:g} to {high[i]:g} (scaled by {zero[i]:g} and "
                f"{one[i]:g}); a label needs finite bounds that increase"
            )
        ends = [float(x) for x in (low[i], high[i], zero[i], one[i])]
        transform = "linear"
        if spelt in LOGARITHMIC:
            if max(ends) > 10:
                raise BundleError(f"{where}: the label {given} reaches {max(ends):g}, which is no logarithm of a Teff")
            ends, transform = [10.0**x for x in ends], "log10"
        elif name == "teff" and 0 < ends[1] < HOT:
            ends = [1000 * x for x in ends]
        unit = UNITS.get(name, "dex" if name.endswith("_h") else "")
        labels.append(Label(name, ends[0], ends[1], unit, transform, (ends[2], ends[3])))
    repeated = {label.name for label in labels if [x.name for x in labels].count(label.name) > 1}
    if repeated:
        raise BundleError(f"{where}: the label {sorted(repeated)[0]} is named twice")
    return LabelSpace(tuple(labels))


def starpayne_name(given: str) -> str:
    """Return the name of a label here: ``[Mg/Fe]`` → ``mg_fe``, ``Teff`` → ``teff``, ``vturb`` → ``vmic``.

    Example:
        >>> [starpayne_name(name) for name in ("Teff", "[Fe/H]", "[C/H]", "vturb", "logTeff")]
        ['teff', 'feh', 'c_h', 'vmic', 'teff']
    """
    return "teff" if given.strip().lower() in LOGARITHMIC else canonical(given)
