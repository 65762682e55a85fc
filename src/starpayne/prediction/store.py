"""Predicted spectra on disk: laid out like a grid, with flags, and what says which star each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from starpayne.emulators.flags import FLAGS
from starpayne.errors import GridError
from starpayne.files import remove
from starpayne.grid import DONE
from starpayne.labels import LabelSpace
from starpayne.prediction.table import Block, LabelTable

if TYPE_CHECKING:
    import xarray

SCHEMA = 1
KIND = "starpayne-predictions"
NOT_PREDICTED, NOT_YET = "not_predicted", "missing"
BITS = (NOT_PREDICTED, *FLAGS)
"""The flags of a spectrum, from the lowest bit of its number on; without a prediction the flux is NaN."""


class Predictions:
    """Predicted spectra, read lazily from disk.

    Example:
        ``found = Predictions.open("spectra.zarr"); found.flux([0, 1]); found.column("file"); found.flags(0)``
    """

    def __init__(self, path: Path, group: Any) -> None:
        self.path, self._group = path, group

    @classmethod
    def lay_out(
        cls,
        path: Path,
        table: LabelTable,
        space: LabelSpace,
        wavelength: np.ndarray,
        *,
        medium: str,
        quantity: str,
        continuum: bool,
        chunk: int,
        identity: Mapping[str, Any],
        provenance: Mapping[str, Any],
        resolution: float | None,
    ) -> Predictions:
        """Store the labels of a table, with room for their spectra; the folder appears when all labels are in it.

        Args:
            path: folder to make.
            table, space: the labels.
            wavelength: (n_wavelength,) Å in ``medium``.
            medium, quantity, resolution: of the spectra.
            continuum: whether there is room for the continuum too.
            chunk: spectra that are predicted and stored at once.
            identity: what decides the spectra, so that an unfinished store is gone on with by the same alone.
            provenance: that the spectra are predicted, by which model, and what its physics leaves out.
        """
        import zarr

        draft = path.with_name(path.name + ".partial")
        remove(draft)
        draft.parent.mkdir(parents=True, exist_ok=True)
        attributes = {
            "schema": SCHEMA, "kind": KIND, "label_space": space.to_dict(), "medium": medium, "quantity": quantity,
            "resolution": resolution, "flags": list(BITS), "ids": list(table.ids), "identity": dict(identity),
            "provenance": dict(provenance),
        }  # fmt: skip
        group = zarr.create_group(str(draft), attributes=attributes)
        n, width = table.n, len(wavelength)

        def variable(name: str, columns: int, dtype: str, dims: Sequence[str], units: str, fill: Any = 0) -> Any:
            shape, chunks = ((n, columns), (chunk, columns)) if columns else ((n,), (chunk,))
            # The digits of a flux are noise to a compressor: it would halve the speed, and save little.
            return group.create_array(
                name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, dimension_names=dims,
                attributes={"units": units}, compressors=None,
            )  # fmt: skip

        labels = variable("labels", len(space), "float64", ("spectrum", "label"), "", np.nan)
        group.create_array(
            "wavelength", data=np.asarray(wavelength, np.float64), dimension_names=("wavelength",),
            attributes={"units": "Angstrom"},
        )  # fmt: skip
        variable("flux", width, "float32", ("spectrum", "wavelength"), "1", np.nan)
        if continuum:
            surface = "erg s-1 cm-2 Angstrom-1"
            variable("continuum", width, "float32", ("spectrum", "wavelength"), surface, np.nan)
        variable("flags", 0, "uint8", ("spectrum",), "bits: " + ", ".join(BITS))
        variable("status", 0, "uint8", ("spectrum",), "0 missing, 1 done")
        # As in a netCDF file, texts are characters along a dimension of their own: bytes of UTF-8, filled with zeros.
        ids = [
            variable(f"id_{name}", size, "uint8", ("spectrum", f"characters_{name}"), "UTF-8")
            for name, size in zip(table.ids, table.widths, strict=True)
        ]
        first = 0
        for block in table.blocks(chunk):
            place = slice(first, first + len(block.labels))
            labels[place] = block.labels
            for array, name in zip(ids, table.ids, strict=True):
                array[place] = _characters(block, name, array.shape[1])
            first = place.stop
        draft.rename(path)
        return cls.open(path, writable=True)

    @classmethod
    def open(cls, path: str | Path, writable: bool = False) -> Predictions:
        """Open a store of predicted spectra.

        Raises:
            GridError: nothing is there, it is something else, damaged, or of a newer schema.
        """
        import zarr

        path = Path(path)
        if not (path / "zarr.json").is_file():
            raise GridError(f"no predicted spectra at {path}")
        try:
            group = zarr.open_group(str(path), mode="r+" if writable else "r", use_consolidated=False)
            attributes = dict(group.attrs)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise GridError(f"{path} is not a readable Zarr store ({type(error).__name__}: {error})") from error
        if attributes.get("kind") != KIND:
            raise GridError(f"{path} holds no predicted spectra, but {attributes.get('kind', 'something else')}")
        schema = attributes.get("schema")
        if not isinstance(schema, int) or schema > SCHEMA:
            raise GridError(f"{path} has schema {schema}; this starpayne reads up to {SCHEMA}: install a newer one")
        found = cls(path, group)
        lacking = [name for name in ("labels", "wavelength", "flux", "flags", "status") if name not in group]
        if lacking or found._group["flux"].shape != (len(found), len(found.wavelength)):
            raise GridError(f"{path} is damaged: {lacking[0] if lacking else 'flux'} is missing or of another shape")
        return found

    def __len__(self) -> int:
        return int(self._group["labels"].shape[0])

    @property
    def chunk(self) -> int:
        """Spectra that are stored at once."""
        return int(self._group["flux"].chunks[0])

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self._group.attrs["identity"])

    @property
    def provenance(self) -> dict[str, Any]:
        return dict(self._group.attrs["provenance"])

    @cached_property
    def space(self) -> LabelSpace:
        return LabelSpace.from_dict(self._group.attrs["label_space"])

    @property
    def medium(self) -> str:
        return str(self._group.attrs["medium"])

    @cached_property
    def wavelength(self) -> np.ndarray:
        """(n_wavelength,) float64 Å."""
        return np.asarray(self._group["wavelength"][:])

    @property
    def status(self) -> np.ndarray:
        """(n,) uint8: 0 missing, 1 done."""
        return np.asarray(self._group["status"][:])

    def labels(self, rows: ArrayLike | slice = np.s_[:]) -> np.ndarray:
        """Return labels (n_rows, n_labels) float64, as they stood in the table."""
        return self._rows("labels", rows)

    def flux(self, rows: ArrayLike | slice = np.s_[:]) -> np.ndarray:
        """Return (n_rows, n_wavelength) float32; NaN where nothing was predicted, or is missing yet."""
        return self._rows("flux", rows)

    def continuum(self, rows: ArrayLike | slice = np.s_[:]) -> np.ndarray:
        """Return the continuum flux (n_rows, n_wavelength) float32 in erg s⁻¹ cm⁻² Å⁻¹."""
        if "continuum" not in self._group:
            raise GridError(f"{self.path} stores no continuum flux: its model gives none")
        return self._rows("continuum", rows)

    def flags(self, row: int) -> tuple[str, ...]:
        """Return the flags of one spectrum: ``missing`` where the run that predicts it has not come so far yet."""
        if self._group["status"][row] != DONE:
            return (NOT_YET,)
        bits = int(self._group["flags"][row])
        return tuple(name for i, name in enumerate(BITS) if bits >> i & 1)

    def flagged(self, name: str) -> np.ndarray:
        """Return (n,) bool: which spectra have a flag."""
        if name == NOT_YET:
            return self.status != DONE
        if name not in BITS:
            raise GridError(f"no flag is called {name!r}; there are {', '.join((*BITS, NOT_YET))}")
        return (np.asarray(self._group["flags"][:]) >> BITS.index(name) & 1).astype(bool)

    def column(self, name: str, rows: ArrayLike | slice = np.s_[:]) -> list[str]:
        """Return a column of the table that says which star a row is, as text."""
        kept = list(self._group.attrs["ids"])
        if name not in kept:
            raise GridError(f"{self.path} keeps no column {name!r}; it keeps {', '.join(kept) or 'none'}")
        return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in self._rows(f"id_{name}", rows)]

    @property
    def dataset(self) -> xarray.Dataset:
        """All of it as a lazy xarray Dataset, with the label names as a coordinate."""
        import xarray

        dataset = xarray.open_zarr(str(self.path), consolidated=False, chunks=None)
        return dataset.assign_coords(label=list(self.space.names))

    def write(self, first: int, flux: np.ndarray, continuum: np.ndarray | None, flags: np.ndarray) -> None:
        """Store one chunk of spectra from row ``first`` on, its status last."""
        place = slice(first, first + len(flux))
        self._group["flux"][place] = flux
        if continuum is not None:
            self._group["continuum"][place] = continuum
        self._group["flags"][place] = flags
        self._group["status"][place] = np.uint8(DONE)

    def _rows(self, name: str, rows: ArrayLike | slice) -> np.ndarray:
        array = self._group[name]
        return np.asarray(array[rows] if isinstance(rows, slice) else array.oindex[np.atleast_1d(np.asarray(rows))])


def _characters(block: Block, name: str, width: int) -> np.ndarray:
    texts = np.array([text.encode() for text in block.ids[name]], dtype=f"S{width}")
    return texts.view(np.uint8).reshape(len(texts), width)
