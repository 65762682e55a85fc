"""What other codes call the stellar labels, and the values of labels that they write in other units."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from starpayne.errors import GridError

ALIASES = {
    "teff": ("temp", "temperature", "t_eff", "effective_temperature"),
    "logg": ("log_g", "log_surf_grav", "gravity"),
    "feh": ("fe_h", "m_h", "mh", "met", "metallicity", "metals", "monh"),
    "alpha_fe": ("alpha", "a_m", "alpha_m", "afe", "a_fe", "alphafe", "alpha_over_m"),
    "vmic": ("v_mic", "vturb", "v_turb", "vmicro", "v_micro", "xi", "vt", "microturbulence", "turbvel"),
    "vmac": ("v_mac", "vmacro", "v_macro", "macroturbulence"),
    "c12_c13": ("12c_13c",),
    "c_fe": ("c_m", "carbon", "cfe"),
}  # fmt: skip
"""Other names of a label, in small letters, with _ for / and without brackets."""

FILE = ("file", "filename", "file_name", "specname", "spectrum", "spectrum_name", "path", "name")
"""Columns of a table that say which spectrum a row belongs to."""

HOT = 100.0
"""A temperature below this is in units of 1000 K."""

_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}


def canonical(name: str) -> str:
    """Return the name of a label in ``labels/`` for what a code calls it, or that in small letters.

    Example:
        >>> [canonical(name) for name in ("T_eff", "[Fe/H]", "Mg_Fe", "[alpha/M]", "VTURB", "vsini")]
        ['teff', 'feh', 'mg_fe', 'alpha_fe', 'vmic', 'vsini']
    """
    plain = re.sub(r"[^0-9a-zα_]+", "_", name.strip().lower().replace("α", "alpha")).strip("_")
    return _CANONICAL.get(plain, plain)


def canonical_labels(
    names: Sequence[str], values: Float64[np.ndarray, "n labels"], source: str
) -> tuple[tuple[str, ...], Float64[np.ndarray, "n labels"]]:
    """Return canonical names and values: Teff in K, and abundances relative to iron where [X/H] was given.

    Raises:
        GridError: for names given twice or that are no identifiers, or an [X/H] without [Fe/H].
    """
    known = [canonical(name) for name in names]
    values = values.copy()
    for i, name in enumerate(known):
        if name == "teff" and np.all(np.nan_to_num(values[:, i]) < HOT):
            values[:, i] *= 1000.0
        if (element := re.fullmatch(r"([a-z]{1,2})_h", name)) is not None:
            if "feh" not in known:
                raise GridError(f"{source}: [{element[1].capitalize()}/H] is given, and no [Fe/H] to relate it to")
            known[i] = f"{element[1]}_fe"
            # Both are read from a file with few digits: without rounding, a solar mixture would be a label of 1e-16.
            values[:, i] = np.round(values[:, i] - values[:, known.index("feh")], 10)
    for name in known:
        if not name.isidentifier():
            raise GridError(f"{source}: the column {name!r} cannot be the name of a label: it is no identifier")
        if known.count(name) > 1:
            raise GridError(f"{source}: two columns are the label {name}; leave one of them out")
    return tuple(known), values
