"""Are wavelengths in the lines of one element more alike in attention than chance?

Attention changes slowly along the spectrum, and a line is many pixels wide: neighbouring pixels are no independent
witnesses, and to shuffle single pixels would call anything smooth significant. Two tests keep that in mind.

*Elsewhere*: the pattern of an element's lines, with their widths and distances, is laid at every other place of the
spectrum (circular shifts), and the mean likeness between its lines measured there. That tells whether attention knows
where the element's lines are; it would also be passed if attention knew lines from continuum, of whatever element.

*Other names*: the lines stay where they are and exchange their elements, among lines of like depth. Likeness is first
made free of its mean at each distance, as the lines of some elements lie nearer to each other. That tells whether
lines of the same element are more alike than lines as such.

The lines of an element count by pairs, each pair once, whatever their widths; pixels of one line are never compared
with each other. The p-values of all elements of a test are corrected together (Holm 1979), which holds
whatever the tests' dependence on each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from starpayne.inside.atlas import Atlas

STRONG = 0.15
"""Peaks of an element's response above this fraction of its largest are its lines, each as far as half its height."""

LEAST = 0.003
"""And above this, per dex of the normalised flux."""

ABOVE = 1.5
"""Of these, the pixels where the response is more than this times that of any other element."""

SHORTEST = 3
"""Pixels of a run of them at least."""

APART = 2e-4
"""Runs nearer to each other than this fraction of the wavelength (1 Å at 5000 Å) are one line: the wings of a strong
line with weaker ones of other elements in it."""

ENOUGH = 3
"""Lines of an element that is tested, at least."""

EXCHANGES = 10_000
DEPTHS = 3
"""Classes of line depth within which names are exchanged."""

BINS = 12
"""Of distance, whose mean likeness is taken off."""


@dataclass(frozen=True)
class Line:
    """Pixels that belong to one element: its place among the elements, and the first and last (included) of each
    run."""

    element: int
    runs: tuple[tuple[int, int], ...]

    @property
    def pixels(self) -> np.ndarray:
        return np.concatenate([np.arange(first, last + 1) for first, last in self.runs])

    @property
    def centre(self) -> float:
        return (self.runs[0][0] + self.runs[-1][1]) / 2


@dataclass(frozen=True)
class ElementTest:
    """What the tests say of one element; NaN where it has too few lines.

    Args:
        element: its name; n_lines how many lines it has here.
        likeness: mean likeness between its lines (correlation of attention, −1 to 1).
        elsewhere: the same, mean over all other places of the pattern; others: mean between lines of other elements.
        p_elsewhere, p_others: of the two tests, and as corrected for the number of elements.
    """

    element: str
    n_lines: int
    likeness: float
    elsewhere: float
    others: float
    p_elsewhere: float
    p_others: float
    corrected_elsewhere: float = np.nan
    corrected_others: float = np.nan


def likeness(attention: np.ndarray) -> np.ndarray:
    """Return (n, n) correlation of the attention of each pair of wavelengths, over all layers, heads and tokens.

    Args:
        attention: (L, heads, n, tokens); the mean over wavelengths is taken off, and each weight has the variance that
            it has along the spectrum: what all wavelengths share makes nobody alike.
    """
    vectors = attention.transpose(2, 0, 1, 3).reshape(attention.shape[2], -1)
    vectors = vectors - vectors.mean(axis=0)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return vectors @ vectors.T


def lines(wavelength: np.ndarray, response: np.ndarray) -> list[Line]:
    """Return the lines of each element, in order of wavelength, from its response (E, n) at wavelengths (n,)."""
    if not len(response):
        return []
    owner, pixels = np.argmax(response, axis=0), np.arange(response.shape[1])
    largest, rest = response.max(axis=0), response.copy()
    rest[owner, pixels] = 0.0
    tall = np.array([_around_peaks(row) for row in response])
    clear = (largest > ABOVE * rest.max(axis=0)) & tall[owner, pixels]
    key, start = np.where(clear, owner, -1), 0
    runs: dict[int, list[list[tuple[int, int]]]] = {}
    for end in [*(np.flatnonzero(np.diff(key)) + 1), len(key)]:
        if key[start] >= 0 and end - start >= SHORTEST:
            mine = runs.setdefault(int(key[start]), [])
            if mine and wavelength[start] / wavelength[mine[-1][-1][1]] < 1 + APART:
                mine[-1].append((int(start), int(end) - 1))
            else:
                mine.append([(int(start), int(end) - 1)])
        start = end
    found = [Line(element, tuple(line)) for element, mine in runs.items() for line in mine]
    return sorted(found, key=lambda line: line.centre)


def _around_peaks(response: np.ndarray) -> np.ndarray:
    """Return (n,) bool: the pixels around each high peak, down to half its height.

    A fixed threshold would make one line of the whole range between lines whose wings meet.
    """
    inside = np.zeros(len(response), bool)
    padded = np.concatenate([[0.0], response, [0.0]])
    # Prominence: bumps on the wing of a strong line, where weak lines cut into it, are no lines.
    found, facts = find_peaks(padded, height=max(LEAST, STRONG * float(response.max())), prominence=0.0)
    peaks = found[facts["prominences"] > 0.5 * facts["peak_heights"]] - 1
    for peak in peaks:
        low = np.flatnonzero(response[:peak] < 0.5 * response[peak])
        high = np.flatnonzero(response[peak:] < 0.5 * response[peak])
        inside[(low[-1] + 1 if len(low) else 0) : (peak + high[0] if len(high) else len(response))] = True
    return inside


def compare(atlas: Atlas, seed: int = 0) -> list[ElementTest]:
    """Run both tests for every element of an atlas."""
    alike, found = likeness(atlas.attention), lines(atlas.wavelength, atlas.response)
    between, free = _between_lines(alike, found)
    names = np.array([line.element for line in found], int)
    depth = np.array([1 - atlas.flux[line.pixels].min() for line in found])
    by_names = _exchange(free, names, depth, len(atlas.elements), np.random.default_rng(seed))
    results = []
    for e, element in enumerate(atlas.elements):
        mine = np.flatnonzero(names == e)
        if len(mine) < ENOUGH:
            results.append(ElementTest(element, len(mine), np.nan, np.nan, np.nan, np.nan, np.nan))
            continue
        shifted = _everywhere(alike, [found[k] for k in mine])
        own = between[np.ix_(mine, mine)][np.triu_indices(len(mine), 1)]
        other = between[np.ix_(mine, np.flatnonzero(names != e))]
        # The place where the lines are is one of all places: their rank is exact (and never below 1/n).
        p = float(np.mean(shifted >= shifted[0] - 1e-12))
        results.append(
            ElementTest(
                element, len(mine), float(own.mean()), float(shifted[1:].mean()),
                float(other.mean()) if other.size else np.nan, p, float(by_names[e]),
            )
        )  # fmt: skip
    return _corrected(results)


def _everywhere(alike: np.ndarray, mine: list[Line]) -> np.ndarray:
    """Return (n,) mean likeness between the lines, their pattern shifted by 0, 1, … pixels around the spectrum."""
    n = len(alike)
    pixels = np.concatenate([line.pixels for line in mine])
    line = np.repeat(np.arange(len(mine)), [len(x.pixels) for x in mine])
    weight = 1.0 / np.bincount(line)[line]
    pairs = np.outer(weight, weight) * (line[:, None] != line[None])
    pairs /= pairs.sum()
    out = np.empty(n)
    for shift in range(n):
        at = (pixels + shift) % n
        out[shift] = np.sum(pairs * alike[np.ix_(at, at)])
    return out


def _between_lines(alike: np.ndarray, found: list[Line]) -> tuple[np.ndarray, np.ndarray]:
    """Return (lines, lines) the mean likeness of each pair, and the same less its mean at their distance."""
    k = len(found)
    member = np.zeros((k, len(alike)))
    for i, line in enumerate(found):
        member[i, line.pixels] = 1 / len(line.pixels)
    between = member @ alike @ member.T
    centre = np.array([line.centre for line in found])
    distance = np.abs(centre[:, None] - centre[None])
    free, upper = between.copy(), np.triu_indices(k, 1)
    if len(upper[0]):
        edges = np.quantile(distance[upper], np.linspace(0, 1, BINS + 1))
        place = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, BINS - 1)
        for b in range(BINS):
            inside = (place == b) & ~np.eye(k, dtype=bool)
            if inside.any():
                free[inside] -= between[inside].mean()
    return between, free


def _exchange(
    free: np.ndarray, names: np.ndarray, depth: np.ndarray, n_elements: int, random: np.random.Generator
) -> np.ndarray:
    """Return (n_elements,) how often lines that exchanged their names are as alike as those that did not."""

    def statistic(of: np.ndarray) -> np.ndarray:
        """Return (exchanges, n_elements) mean likeness between lines of each element, for names (exchanges, lines)."""
        values = np.empty((len(of), n_elements))
        for e in range(n_elements):
            member = (of == e).astype(float)
            count = member.sum(axis=1)
            total = np.sum((member @ free) * member, axis=1) - member @ np.diag(free)
            values[:, e] = total / np.maximum(count * (count - 1), 1)
        return values

    if not len(names):
        return np.full(n_elements, np.nan)
    exchanged = np.tile(names, (EXCHANGES, 1))
    for members in np.array_split(np.argsort(depth, kind="stable"), DEPTHS):
        exchanged[:, members] = random.permuted(exchanged[:, members], axis=1)
    as_alike = statistic(exchanged) >= statistic(names[None]) - 1e-12
    return (1 + as_alike.sum(axis=0)) / (EXCHANGES + 1)


def _corrected(results: list[ElementTest]) -> list[ElementTest]:
    first = holm(np.array([r.p_elsewhere for r in results]))
    second = holm(np.array([r.p_others for r in results if r.n_lines >= ENOUGH]))
    out, k = [], 0
    for r, p in zip(results, first, strict=True):
        q = np.nan
        if r.n_lines >= ENOUGH:
            q, k = float(second[k]), k + 1
        out.append(
            ElementTest(r.element, r.n_lines, r.likeness, r.elsewhere, r.others, r.p_elsewhere, r.p_others, float(p), q)
        )
    return out


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values (n,) corrected for their number (Holm 1979, Scand. J. Statist. 6, 65); NaN are no tests."""
    out, known = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(p[i])))
        out[i] = highest
    return out
