"""Labels that are not given: a solar mixture, and the microturbulence that stars of this kind have."""

from __future__ import annotations

from collections.abc import Mapping

from starpayne.labels.space import LabelSpace
from starpayne.labels.table import ALPHA, is_abundance

ALPHA_LABELS = frozenset(f"{symbol.lower()}_fe" for symbol in ALPHA)


def solar_abundances(space: LabelSpace, given: Mapping[str, float]) -> dict[str, float]:
    """Return the abundance labels that are not given: [α/Fe] = 0, α elements at [α/Fe], all others at [X/Fe] = 0.

    Example:
        >>> from starpayne.labels import Label
        >>> space = LabelSpace((Label("alpha_fe", -0.1, 0.5), Label("mg_fe", -0.5, 0.9), Label("na_fe", -0.4, 0.4)))
        >>> solar_abundances(space, {"alpha_fe": 0.3})
        {'mg_fe': 0.3, 'na_fe': 0.0}
    """
    alpha = given.get("alpha_fe", 0.0)
    rest = {name: alpha if name in ALPHA_LABELS else 0.0 for name in space.names if is_abundance(name)}
    if "alpha_fe" in space.names:
        rest = {"alpha_fe": alpha, **rest}
    return {name: rest[name] for name in space.names if name in rest and name not in given}


def microturbulence(teff: float, logg: float, feh: float) -> float:
    """Return the microturbulence (km/s) of a star by the relation of the Gaia-ESO Survey.

    The relation of M. Bergemann and V. Hill for the UVES spectra of its first data release, as used by its working
    groups (see Smiljanic et al. 2014, A&A 570, A122, and Jofré et al. 2014, A&A 564, A133).

    Args:
        teff: K; logg: dex(cm/s2); feh: dex.
    """
    g, dwarf = logg - 4.0, logg >= 3.5
    t = (max(teff, 5000.0) if dwarf else teff) - 5500.0
    value = 1.05 + 2.51e-4 * t + 1.5e-7 * t**2 if dwarf else 1.25 + 4.01e-4 * t + 3.1e-7 * t**2
    return value - 0.14 * g - 0.005 * g**2 + 0.05 * feh + 0.01 * feh**2


def fill_solar_scaled(space: LabelSpace, given: Mapping[str, float]) -> dict[str, float]:
    """Return the labels that are not given and can be supplied: :func:`solar_abundances`, and ``vmic`` by
    :func:`microturbulence`, no farther than the ends of its range, where Teff, log g and [Fe/H] are known."""
    filled = solar_abundances(space, given)
    # What a network holds is known too.
    known = {label.name: value for label, value in space.held} | dict(given)
    if "vmic" in space.names and "vmic" not in given and {"teff", "logg", "feh"} <= set(known):
        value = microturbulence(known["teff"], known["logg"], known["feh"])
        filled["vmic"] = round(min(max(value, space["vmic"].low), space["vmic"].high), 2)
    return {name: filled[name] for name in space.names if name in filled}
