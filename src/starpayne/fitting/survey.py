"""Fit all spectra of a survey into one table, in batches that are kept on disk: a stop loses little."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.errors import StarpayneError
from starpayne.fitting import cluster
from starpayne.fitting.following import company, follow
from starpayne.fitting.many import batch_size
from starpayne.fitting.observation import Source
from starpayne.fitting.options import FitOptions
from starpayne.fitting.parts import Parts
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.result import FitResult
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import summarise
from starpayne.fitting.table import check_table
from starpayne.spectrum_tables import Spectra

Progress = Callable[[int, int], None]
Seen = Callable[[str, FitResult | StarpayneError], None]


@dataclass(frozen=True)
class Survey:
    """What became of the stars of a survey.

    Args:
        table: where the rows are.
        stars: rows.
        failed: rows without numbers.
        flags: how often each flag was given, the most frequent first.
    """

    table: Path
    stars: int
    failed: int
    flags: Mapping[str, int]


def fit_survey(
    spectra: Spectra,
    model: Model,
    resolution: Resolution,
    table: str | Path,
    options: FitOptions | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    json: Path | None = None,
    progress: Progress | None = None,
    seen: Seen | None = None,
) -> Survey:
    """Fit many spectra and write a table with a row for each, in their order; run again after a stop, it goes on.

    Finished batches are kept in the folder TABLE.parts beside the table until the last one is done. When the run ends
    early, whatever the reason, the table of what is finished is written.

    Args:
        spectra: such as :func:`starpayne.spectrum_tables.open_spectra` returns.
        model, resolution, options: as of :func:`fit`.
        table: .csv, .ecsv, .fits or .parquet.
        workers, scheduler: as of :func:`fit_many`; by default one process per core where there are many stars.
        overwrite: begin anew, and replace the table and the parts of another survey.
        json: file to write the rows to as well, in full.
        progress: called as ``progress(stars finished, stars)``.
        seen: called with the name and the outcome of every star that is fitted in this run, in any order.

    Raises:
        SpectrumError, LabelError, MissingExtraError: as of :func:`fit_many`.
        OutputExistsError: the table is there, or parts of another survey.

    Example:
        ``fit_survey(open_spectra(["survey.parquet"]), starpayne.load(), 20_000, "stars.parquet", workers=8)``
    """
    path, setup = Path(table), Setup(model, options or FitOptions())
    check_table(path)
    workers = cluster.suitable_workers(len(spectra)) if workers is None else workers
    cluster.check_workers(workers)
    parts = Parts.open(path, _identity(spectra, setup, resolution), len(spectra), overwrite)
    run = _Run(spectra, setup, resolution, parts, progress, seen)
    try:
        if scheduler is not None or workers > 1:
            run.on_cluster(workers, scheduler)
        else:
            run.here()
    finally:
        survey = _summary(parts)
        parts.finish(json)
    return survey


class _Run:
    """One run of a survey: fits what is missing, and keeps it."""

    def __init__(
        self, spectra: Spectra, setup: Setup, resolution: Resolution, parts: Parts, progress: Progress | None,
        seen: Seen | None,
    ) -> None:  # fmt: skip
        self._spectra, self._setup, self._resolution, self._parts = spectra, setup, resolution, parts
        self._progress, self._seen = progress, seen
        self._size, self._missing = batch_size(setup), parts.missing()
        self._before = len(spectra) - sum(len(gap) for gap in self._missing)
        self._finished: dict[int, int] = {}

    def on_cluster(self, workers: int, scheduler: str | None) -> None:
        size = self._size
        if scheduler is None:
            # Of few stars, each process has some.
            size = min(size, -(-len(self._spectra) // (2 * workers)))
        batches = (
            (first, self._sources(range(first, min(first + size, gap.stop))))
            for gap in self._missing for first in range(gap.start, gap.stop, size)
        )  # fmt: skip
        for first, outcomes in cluster.fit_batches(
            batches, self._resolution, self._setup, company(), workers, scheduler, self._heard
        ):
            self._keep(first, outcomes)

    def here(self) -> None:
        setup = self._setup
        for gap in self._missing:
            first, found, sources = gap.start, [], self._sources(gap)
            try:
                for outcome in follow(sources, self._resolution, setup, lambda d: summarise(d, setup), company()):
                    found.append(outcome)
                    self._heard(first, len(found))
                    if len(found) == self._size:
                        self._keep(first, found)
                        first, found = first + len(found), []
            finally:
                # Also after Ctrl-C.
                if found:
                    self._keep(first, found)

    def _sources(self, rows: Iterable[int]) -> list[Source]:
        return [partial(self._spectra.read, row) for row in rows]

    def _heard(self, first: int, stars: int) -> None:
        self._finished[first] = stars
        if self._progress is not None:
            self._progress(self._before + sum(self._finished.values()), len(self._spectra))

    def _keep(self, first: int, outcomes: Sequence[cluster.Outcome]) -> None:
        names, labels = (
            [self._spectra.name(first + k) for k in range(len(outcomes))],
            self._setup.model.emulator.space.names,
        )
        self._parts.write(first, [row_of(n, outcome, labels) for n, outcome in zip(names, outcomes, strict=True)])
        self._heard(first, len(outcomes))
        for name, outcome in zip(names, outcomes, strict=True):
            if self._seen is not None:
                self._seen(name, outcome)


def row_of(name: str, outcome: FitResult | StarpayneError, labels: Sequence[str]) -> dict[str, Any]:
    """Return the row of a star as ``FitResult.to_dict`` gives it, under this name; of an error, one without numbers."""
    if isinstance(outcome, FitResult):
        return outcome.to_dict() | {"file": name}
    return {
        "file": name, "labels": {label: {"value": None, "error": None, "raw_error": None} for label in labels},
        "rv": None, "vsini": None, "chi2": None, "flags": ["failed"], "message": str(outcome),
    }  # fmt: skip


def _identity(spectra: Spectra, setup: Setup, resolution: Resolution) -> dict[str, Any]:
    return {
        "model": bundle.digest(setup.model.emulator), "spectra": _digest(spectra.identity),
        "resolution": _digest(_plain(resolution)), "stars": len(spectra), "starpayne": version("starpayne"),
        "options": {name: _digest(value) for name, value in _plain(setup.options).items()},
    }  # fmt: skip


def _digest(data: Any) -> str:
    return hashlib.sha256(dumps(data, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return settings as JSON data, for a digest."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _summary(parts: Parts) -> Survey:
    flags: Counter[str] = Counter()
    stars = failed = 0
    for _, rows in parts.parts():
        stars += len(rows)
        for row in rows:
            failed += "failed" in row["flags"]
            flags.update(row["flags"])
    return Survey(parts.table, stars, failed, dict(flags.most_common()))
