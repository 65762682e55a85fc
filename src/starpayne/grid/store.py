"""A grid of synthetic spectra: labels × wavelength → flux, in one Zarr store opened through xarray.

Workers write disjoint chunks side by side; the status of a row is written last, so that whatever stops a run, a row
that says "done" is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from starpayne.errors import GridError, OutputExistsError
from starpayne.files import remove, remove_output
from starpayne.grid.split import SPLITS, Failure, Split
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_medium, check_wavelength

if TYPE_CHECKING:
    import xarray

SCHEMA = 1
MAX_CHUNK = 16
MISSING, DONE, FAILED = 0, 1, 2


class Grid:
    """Labels, wavelengths and spectra of one grid, read lazily from disk.

    Use :meth:`create` and :meth:`open`. Fluxes are normalised (flux over continuum); the continuum is a surface flux in
    erg s⁻¹ cm⁻² Å⁻¹; wavelengths are Å, float64, in ``medium``.

    Example:
        ``grid = Grid.open("mgb.zarr"); grid.flux(grid.split.train[:10])``
    """

    def __init__(self, path: Path, group: Any) -> None:
        self.path = path
        self._group = group

    # -- making and opening ---------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        space: LabelSpace,
        labels: ArrayLike,
        wavelength: ArrayLike,
        *,
        medium: str,
        split: Split,
        provenance: Mapping[str, Any],
        sampling: float | None = None,
        resolution: float | None = None,
        continuum: bool = True,
        mu: ArrayLike | None = None,
        chunk: int = MAX_CHUNK,
        overwrite: bool = False,
    ) -> Grid:
        """Lay out an empty grid on disk and return it.

        Args:
            path: folder to make; an existing one is an error unless ``overwrite``.
            space: the label table.
            labels: (n_spectra, n_labels) in physical units, checked against the table.
            wavelength: (n_wavelength,) Å, increasing.
            medium: "air" or "vacuum".
            split: which rows train, validate and test.
            provenance: engine, versions, line list, atmosphere, ``physics`` flags; plain JSON data.
            sampling: λ/Δλ of the wavelengths, where they are log-uniform.
            resolution: λ/FWHM of any broadening in the spectra; None means none beyond the star's own.
            continuum: whether the continuum flux is stored.
            mu: (n_mu,) cosines of viewing angles, where specific intensities are stored as well.
            chunk: spectra per chunk, at most 16.

        Raises:
            OutputExistsError, GridError, LabelError, WavelengthError.
        """
        import zarr

        path = Path(path)
        labels = np.asarray(labels, dtype=np.float64)
        wavelength = check_wavelength(wavelength)
        if labels.ndim != 2 or len(labels) == 0:
            raise GridError(f"a grid needs at least one spectrum; labels have shape {labels.shape}")
        if not 1 <= chunk <= MAX_CHUNK:
            raise GridError(f"chunk = {chunk} is outside the range 1 to {MAX_CHUNK}")
        space.check(labels)
        split.check(len(labels))
        if path.exists():
            if not overwrite:
                raise OutputExistsError(f"{path} exists; give another path, or --overwrite to replace it")
            remove_output(path, "zarr.json")
        attributes = {
            "schema": SCHEMA,
            "kind": "starpayne-grid",
            "label_space": space.to_dict(),
            "medium": check_medium(medium),
            "sampling": sampling,
            "resolution": resolution,
            "split": asdict(split),
            "provenance": dict(provenance),
            "failures": [],
        }
        # Built beside its place and renamed, so that a grid that opens is a grid that was completely laid out.
        draft = path.with_name(path.name + ".partial")
        remove(draft)
        draft.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.create_group(str(draft), attributes=attributes)
        n, width = len(labels), len(wavelength)

        def variable(name: str, shape: tuple, chunks: tuple, dtype: str, dims: Sequence[str], units: str) -> Any:
            fill: Any = 0 if dtype == "uint8" else np.nan
            return group.create_array(
                name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill,
                dimension_names=dims, attributes={"units": units},
            )  # fmt: skip

        # xarray has no string type that every Zarr version stores alike: label names are in the attributes.
        variable("labels", labels.shape, labels.shape, "float64", ("spectrum", "label"), "")[:] = labels
        variable("wavelength", (width,), (width,), "float64", ("wavelength",), "Angstrom")[:] = wavelength
        variable("flux", (n, width), (chunk, width), "float32", ("spectrum", "wavelength"), "1")
        if continuum:
            surface = "erg s-1 cm-2 Angstrom-1"
            variable("continuum", (n, width), (chunk, width), "float32", ("spectrum", "wavelength"), surface)
        if mu is not None:
            mu = np.asarray(mu, dtype=np.float64)
            variable("mu", mu.shape, mu.shape, "float64", ("mu",), "")[:] = mu
            shape = (n, len(mu), width)
            chunks = (chunk, len(mu), width)
            units = "erg s-1 cm-2 Angstrom-1 sr-1"
            variable("intensity", shape, chunks, "float32", ("spectrum", "mu", "wavelength"), units)
        variable("status", (n,), (chunk,), "uint8", ("spectrum",), "0 missing, 1 done, 2 failed")
        draft.rename(path)
        return cls.open(path, writable=True)

    @classmethod
    def open(cls, path: str | Path, writable: bool = False) -> Grid:
        """Open a grid.

        Raises:
            GridError: if the path is missing, is not a starpayne grid, is damaged, or of a newer schema.
        """
        import zarr

        path = Path(path)
        if not path.exists():
            raise GridError(f"no grid at {path}")
        foreign = f"{path} is not a starpayne grid; `starpayne import` makes one from other people's files"
        if not (path / "zarr.json").is_file():
            raise GridError(foreign)
        try:
            group = zarr.open_group(str(path), mode="r+" if writable else "r", use_consolidated=False)
            attributes = dict(group.attrs)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise GridError(f"{path} is not a readable Zarr store ({type(error).__name__}: {error})") from error
        if attributes.get("kind") != "starpayne-grid":
            raise GridError(foreign)
        schema = attributes.get("schema")
        if not isinstance(schema, int) or schema > SCHEMA:
            raise GridError(
                f"{path} has grid schema {schema}; this starpayne reads up to {SCHEMA}: install a newer starpayne"
            )
        grid = cls(path, group)
        try:
            grid._check()
        except GridError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            raise GridError(f"{path} is damaged: its description cannot be used ({error})") from error
        return grid

    def _check(self) -> None:
        for name in ("labels", "wavelength", "flux", "status"):
            if name not in self._group:
                raise GridError(f"{self.path} is damaged: the variable {name!r} is missing")
        if len(self.status) == 0:
            raise GridError(f"{self.path} is empty: it has no spectra")
        shape = (len(self.labels), len(self.wavelength))
        if self._group["flux"].shape != shape or self.labels.shape[1] != len(self.space):
            raise GridError(
                f"{self.path} is damaged: flux has shape {self._group['flux'].shape}, "
                f"labels and wavelengths say {shape}"
            )
        check_medium(self.medium)
        check_wavelength(self.wavelength)
        self.space.check(self.labels)
        self.split.check(len(self.labels))
        # Read here, so that a grid that opens is one whose description is whole.
        _ = self.provenance, self.failures

    # -- what is in it --------------------------------------------------------------------------------------

    @cached_property
    def space(self) -> LabelSpace:
        return LabelSpace.from_dict(self._group.attrs["label_space"])

    @cached_property
    def labels(self) -> np.ndarray:
        """(n_spectra, n_labels) float64."""
        return self._read("labels", np.s_[:])

    @cached_property
    def wavelength(self) -> np.ndarray:
        """(n_wavelength,) float64 Å."""
        return self._read("wavelength", np.s_[:])

    @property
    def medium(self) -> str:
        return str(self._group.attrs["medium"])

    @property
    def sampling(self) -> float | None:
        return self._group.attrs.get("sampling")

    @property
    def resolution(self) -> float | None:
        return self._group.attrs.get("resolution")

    @cached_property
    def split(self) -> Split:
        stored = self._group.attrs["split"]
        return Split(*(tuple(int(i) for i in stored[name]) for name in SPLITS))

    @property
    def provenance(self) -> dict[str, Any]:
        return dict(self._group.attrs["provenance"])

    @property
    def physics(self) -> tuple[str, ...]:
        """Flags of what the spectra leave out, such as ``no_molecules`` and ``lte``."""
        return tuple(self.provenance.get("physics", ()))

    @property
    def failures(self) -> list[Failure]:
        return [Failure(int(f["row"]), f["labels"], f["reason"]) for f in self._group.attrs["failures"]]

    @property
    def status(self) -> np.ndarray:
        """(n_spectra,) uint8: 0 missing, 1 done, 2 failed; read afresh from disk each time."""
        return self._read("status", np.s_[:])

    @property
    def chunk(self) -> int:
        """Spectra per chunk on disk."""
        return int(self._group["flux"].chunks[0])

    @property
    def has_continuum(self) -> bool:
        return "continuum" in self._group

    @property
    def has_intensity(self) -> bool:
        return "intensity" in self._group

    @cached_property
    def mu(self) -> np.ndarray:
        """(n_mu,) float64 cosines of the viewing angles of the intensities, in the grid's order."""
        if not self.has_intensity:
            raise GridError(self._no_intensities)
        return self._read("mu", np.s_[:])

    @property
    def _no_intensities(self) -> str:
        return (
            f"{self.path} stores no intensities; synthesize it anew with viewing angles, mu = [...] under "
            "[engine.settings] of its design (as in the shipped design intensities.toml)"
        )

    @property
    def fingerprint(self) -> str:
        """A hash of labels, wavelengths and provenance: the same for the same grid, wherever it lies."""
        digest = hashlib.sha256(self.labels.tobytes() + self.wavelength.tobytes())
        digest.update(json.dumps(self._group.attrs["provenance"], sort_keys=True).encode())
        return digest.hexdigest()[:16]

    @property
    def dataset(self) -> xarray.Dataset:
        """The grid as a lazy xarray Dataset, with the label names as a coordinate."""
        import xarray

        dataset = xarray.open_zarr(str(self.path), consolidated=False, chunks=None)
        return dataset.assign_coords(label=list(self.space.names))

    def flux(self, rows: ArrayLike | Sequence[int] | None = None) -> np.ndarray:
        """Return normalised flux (n_rows, n_wavelength) float32 of the given rows (default: all).

        Raises:
            GridError: if a row was not synthesized, or its data cannot be read.
        """
        return self._spectra("flux", rows)

    def continuum(self, rows: ArrayLike | Sequence[int] | None = None) -> np.ndarray:
        """Return continuum surface flux (n_rows, n_wavelength) float32 in erg s⁻¹ cm⁻² Å⁻¹."""
        if not self.has_continuum:
            raise GridError(f"{self.path} stores no continuum flux")
        return self._spectra("continuum", rows)

    def intensity(self, rows: ArrayLike | Sequence[int] | None = None) -> np.ndarray:
        """Return specific intensities (n_rows, n_mu, n_wavelength) float32 in erg s⁻¹ cm⁻² Å⁻¹ sr⁻¹."""
        if not self.has_intensity:
            raise GridError(self._no_intensities)
        return self._spectra("intensity", rows)

    def usable(self, rows: Iterable[int]) -> np.ndarray:
        """Return those of the rows that are done, in their order."""
        rows = np.asarray(list(rows), dtype=np.int64)
        return rows[self.status[rows] == DONE]

    def _spectra(self, name: str, rows: ArrayLike | Sequence[int] | None) -> np.ndarray:
        rows = np.arange(len(self.labels)) if rows is None else np.atleast_1d(np.asarray(rows, dtype=np.int64))
        if rows.size and (rows.min() < 0 or rows.max() >= len(self.labels)):
            wrong = rows.max() if rows.max() >= len(self.labels) else rows.min()
            raise GridError(f"row {wrong} of {len(self.labels)} spectra does not exist")
        not_done = rows[self.status[rows] != DONE]
        if not_done.size:
            raise GridError(
                f"{not_done.size} of the {rows.size} rows asked for were not synthesized (first: row {not_done[0]}); "
                "run `starpayne synthesize` again to complete the grid, or take grid.usable(rows)"
            )
        values = self._read(name, np.s_[:]) if len(rows) > 64 else self._read_rows(name, rows)
        values = values[rows] if len(rows) > 64 else values
        if not np.all(np.isfinite(values)):
            raise GridError(
                f"{self.path} is damaged: {name} of finished rows is not finite, a file may be missing; "
                "`starpayne synthesize` with its design synthesizes what is lost again"
            )
        return values

    def _read_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self._read(name, rows) if len(rows) else np.empty((0, *self._group[name].shape[1:]), np.float32)

    def _read(self, name: str, rows: Any) -> np.ndarray:
        try:
            array = self._group[name]
            return np.asarray(array[rows] if isinstance(rows, slice) else array.oindex[rows])
        except (ValueError, RuntimeError, OSError, EOFError) as error:
            raise GridError(f"{self.path} is damaged: {name} cannot be read ({error})") from error

    # -- writing --------------------------------------------------------------------------------------------

    def write(
        self, row: int, *, flux: np.ndarray, continuum: np.ndarray | None = None, intensity: np.ndarray | None = None
    ) -> None:
        """Store what the grid has room for of one spectrum, status last; one process at a time in any chunk.

        Raises:
            GridError: if the row does not exist, or an array is missing, of another shape, or not finite.
        """
        if not 0 <= row < len(self.labels):
            raise GridError(f"row {row} of {len(self.labels)} spectra does not exist")
        arrays = {"flux": flux, "continuum": continuum, "intensity": intensity}
        for name, values in arrays.items():
            if values is None:
                if name == "continuum" and self.has_continuum:
                    raise GridError(f"row {row}: this grid stores the continuum, and none was given")
            elif name not in self._group:
                continue
            elif np.shape(values) != (shape := self._group[name].shape[1:]):
                raise GridError(f"row {row}: {name} has shape {np.shape(values)}, this grid needs {shape}")
            elif not np.all(np.isfinite(values)):
                raise GridError(f"row {row}: {name} is not finite everywhere")
        for name, values in arrays.items():
            if values is not None and name in self._group:
                self._group[name][row] = values
        self._group["status"][row] = DONE

    def write_all(self, flux: np.ndarray, continuum: np.ndarray | None = None) -> None:
        """Store every spectrum at once (for importers)."""
        self._group["flux"][:] = flux
        if continuum is not None:
            self._group["continuum"][:] = continuum
        self._group["status"][:] = DONE

    def write_block(self, first: int, flux: np.ndarray, continuum: np.ndarray | None = None) -> None:
        """Store neighbouring spectra at once (for importers); a row with NaN in it stays missing.

        Args:
            first: row of the first one; a multiple of ``chunk``, so that no chunk on disk is written twice.
            flux, continuum: (n, n_wavelength).
        """
        good = np.all(np.isfinite(flux), axis=1) & (continuum is None or np.all(np.isfinite(continuum), axis=1))
        block = slice(first, first + len(flux))
        self._group["flux"][block] = flux
        if continuum is not None:
            self._group["continuum"][block] = continuum
        self._group["status"][block] = np.where(good, DONE, MISSING).astype(np.uint8)

    def forget_damaged(self) -> int:
        """Mark the rows of chunks that say done and cannot be read as missing again; return how many rows that are.

        A lost or truncated file of a chunk is thus repaired by synthesizing its spectra anew.
        """
        status, forgotten = self.status, 0
        names = [n for n in ("flux", "continuum", "intensity") if n in self._group]
        for first in range(0, len(status), self.chunk):
            rows = np.arange(first, min(first + self.chunk, len(status)))
            done = rows[status[rows] == DONE]
            if len(done) == 0:
                continue
            try:
                if all(np.all(np.isfinite(self._read(name, done))) for name in names):
                    continue
            except GridError:
                pass  # unreadable: reset below like one that is missing
            # Whole chunks are written, so that nothing of a truncated file is read again.
            for name in names:
                self._group[name][first : rows[-1] + 1] = np.nan
            self._group["status"][first : rows[-1] + 1] = np.where(status[rows] == FAILED, FAILED, MISSING)
            forgotten += len(done)
        return forgotten

    def fail(self, failures: Iterable[Failure]) -> None:
        """Add rows to the failure table and mark them; one process only, as the table is one attribute."""
        failures = list(failures)
        table = {f.row: f for f in [*self.failures, *failures]}
        self._group.attrs["failures"] = [asdict(table[row]) for row in sorted(table)]
        for failure in failures:
            self._group["status"][failure.row] = FAILED
