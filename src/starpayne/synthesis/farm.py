"""Run an engine over a design into a grid, with Dask: resumable, and safe against spectra that hang or crash."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from starpayne.errors import GridError, MissingExtraError, OutputExistsError, SynthesisError
from starpayne.grid import DONE, FAILED, MAX_CHUNK, MISSING, Failure, Grid
from starpayne.synthesis.design import Design
from starpayne.synthesis.pool import pool_of, stop_pool
from starpayne.synthesis.watchdog import LIMIT, ChildEngine, SynthesisFailure

Progress = Callable[[int, int, int], None]
"""Called with (rows finished, rows in all, of those failed) from the main thread."""


def run(
    design: Design,
    path: str | Path,
    workers: int = 2,
    scheduler: str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    limit: float = LIMIT,
) -> Grid:
    """Synthesize every spectrum of a design that its grid does not hold yet, and return the grid.

    Args:
        design: what to synthesize.
        path: the grid's folder. If it holds an unfinished grid of the same design, that is completed.
        workers: spectra at a time, each in a process of its own.
        scheduler: address of a running Dask scheduler, whose workers must see ``path`` too; by default a cluster in
            this process with ``workers`` threads, which do nothing but wait for their engine processes.
        progress: called as rows finish.
        overwrite: replace whatever is at ``path``.
        limit: seconds that one spectrum may take.

    Returns:
        the grid; rows that could not be synthesized stand in ``grid.failures``.

    Raises:
        LabelError, SynthesisError: for a design that the engine cannot do, before anything runs.
        OutputExistsError: if ``path`` holds something else.
        KeyboardInterrupt: after Ctrl-C; every finished row is kept, and running again goes on from there.

    Example:
        ``grid = run(Design.from_toml("design.toml"), "grid.zarr", workers=8)``
    """
    if workers < 1:
        raise SynthesisError(f"workers = {workers}: at least one is needed")
    job = uuid.uuid4().hex
    # The engine that checks the design and describes itself goes on to work for the first block.
    engine = _engine(design, limit)
    try:
        engine.check(design.space)
        grid = _grid(design, Path(path), design.provenance(engine.provenance()), workers, overwrite)
        blocks = unfinished_blocks(grid)
        report = _Report(grid, progress)
        if blocks:
            pool_of(job, lambda: _engine(design, limit)).give(engine)
            _compute(design, grid, blocks, workers, scheduler, limit, job, report)
        report.final()
        return Grid.open(path)
    finally:
        engine.close()
        stop_pool(job)


def unfinished_blocks(grid: Grid) -> list[list[int]]:
    """Return the rows that are neither done nor failed, by chunk: workers must never share a chunk."""
    rows = np.flatnonzero(grid.status == MISSING)
    return [rows[rows // grid.chunk == chunk].tolist() for chunk in np.unique(rows // grid.chunk)]


def _engine(design: Design, limit: float) -> ChildEngine:
    return ChildEngine(design.engine, design.engine_settings(), design.wavelength, limit)


def _grid(design: Design, path: Path, provenance: dict[str, Any], workers: int, overwrite: bool) -> Grid:
    """Return the grid to fill: the one at ``path`` if it is of this design, or a new one."""
    if path.exists() and not overwrite:
        try:
            grid = Grid.open(path, writable=True)
        except GridError as error:
            raise OutputExistsError(f"{error}; give another path, or --overwrite to replace it") from error
        different = _differences(design, grid, provenance)
        if different:
            raise OutputExistsError(
                f"{path} holds the grid of another design ({', '.join(different)} differ); give another path, or "
                "--overwrite to replace it"
            )
        grid.forget_damaged()
        return grid
    n = design.n_spectra
    return Grid.create(
        path,
        design.space,
        design.labels,
        design.wavelength,
        medium=design.medium,
        split=design.split,
        provenance=provenance,
        sampling=design.sampling,
        mu=design.settings.get("mu") or None,
        # Small enough that every worker has some blocks, and that little is in flight at a time.
        chunk=min(MAX_CHUNK, max(1, n // (4 * workers))),
        overwrite=overwrite,
    )


def _differences(design: Design, grid: Grid, provenance: dict[str, Any]) -> list[str]:
    """Name what keeps the stored grid from being continued with this design."""
    pairs = {
        "label table": grid.space == design.space,
        "labels": np.array_equal(grid.labels, design.labels),
        "wavelengths": np.array_equal(grid.wavelength, design.wavelength) and grid.medium == design.medium,
        "split": grid.split == design.split,
    }
    stored = grid.provenance
    pairs |= {key: stored.get(key) == provenance.get(key) for key in sorted({*stored, *provenance})}
    return [name for name, same in pairs.items() if not same]


# -- running -----------------------------------------------------------------------------------------------------


def _compute(
    design: Design,
    grid: Grid,
    blocks: Sequence[Sequence[int]],
    workers: int,
    scheduler: str | None,
    limit: float,
    job: str,
    report: _Report,
) -> None:
    """Send the blocks to the workers, count rows as they finish, and record failures, until all is done."""
    news: SimpleQueue[Any] = SimpleQueue()
    with _client(min(workers, len(blocks)), scheduler) as client:
        client.subscribe_topic(job, lambda event: news.put(int(event[1])))
        arguments = (str(grid.path), design.to_dict(), limit, job)
        futures = [client.submit(_block, rows, *arguments, key=f"{job}-{rows[0]}") for rows in blocks]
        waiting = set(futures)
        try:
            for future in futures:
                future.add_done_callback(news.put)
            while waiting:
                with contextlib.suppress(Empty):
                    item = news.get(timeout=0.5)
                    if isinstance(item, int):
                        report.row()
                    else:
                        waiting.discard(item)
                        report.failures(item.result())
        except BaseException:
            # Ctrl-C above all: engines are killed, so that no worker is left waiting for one.
            _stop(client, job, scheduler is None)
            client.cancel(futures, force=True)
            raise
        if scheduler is not None:
            client.run(stop_pool, job)


def _block(
    rows: Sequence[int], path: str, design: dict[str, Any], limit: float, job: str
) -> list[tuple[int, dict[str, float], str]]:
    """Synthesize and store some rows of one chunk, on a worker; return those that failed, with the reason."""
    from distributed import get_worker

    grid, worker = Grid.open(path, writable=True), get_worker()
    pool = pool_of(job, lambda: _engine(Design.from_dict(design), limit))
    engine = pool.take()
    failures = []
    try:
        for row in rows:
            labels = dict(zip(grid.space.names, grid.labels[row].tolist(), strict=True))
            try:
                spectrum = engine.synthesize(labels)
            except SynthesisFailure as failure:
                if pool.stopped:
                    raise
                failures.append((int(row), labels, failure.reason))
            else:
                grid.write(int(row), flux=spectrum.flux, continuum=spectrum.continuum, intensity=spectrum.intensity)
            worker.log_event(job, int(row))
    finally:
        pool.give(engine)
    return failures


def _stop(client: Any, job: str, local: bool) -> None:
    """Kill the engines of this run, here and on remote workers."""
    stop_pool(job)
    if not local:
        with contextlib.suppress(Exception):  # a scheduler that is gone must not hide why we stop
            client.run(stop_pool, job)


@contextlib.contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """Yield a Dask client of the given scheduler, or of a cluster in this process."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingExtraError(f'Dask is missing ({error}); run: pip install "starpayne[synthesis]"') from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=10)
        except (OSError, TimeoutError, ValueError) as error:
            raise SynthesisError(f"no Dask scheduler answers at {scheduler!r} ({error})") from error
        with client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=workers,
            processes=False,
            threads_per_worker=1,
            dashboard_address=None,  # pyright: ignore[reportArgumentType]  (documented: None means no dashboard)
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


class _Report:
    """Counts rows for the progress callback and writes the failure table, in the main thread alone."""

    def __init__(self, grid: Grid, progress: Progress | None) -> None:
        status = grid.status
        self._grid, self._progress = grid, progress
        self._total = len(status)
        self._finished, self._failed = int(np.sum(status != MISSING)), int(np.sum(status == FAILED))
        self._call()

    def row(self) -> None:
        self._finished += 1
        self._call()

    def failures(self, failed: Sequence[tuple[int, dict[str, float], str]]) -> None:
        """Record the failures of a finished block: its rows are nobody else's any more."""
        if failed:
            self._grid.fail([Failure(*f) for f in failed])
            self._failed += len(failed)
            self._call()

    def final(self) -> None:
        """Report what stands on disk: events of the last rows may be under way still."""
        status = self._grid.status
        self._finished = int(np.sum((status == DONE) | (status == FAILED)))
        self._call()

    def _call(self) -> None:
        if self._progress is not None:
            self._progress(min(self._finished, self._total), self._total, self._failed)
