"""The contract of all emulators: physical labels in, normalised flux out, at the wavelengths asked for."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from starpayne.emulators.domain import SpectralDomain
from starpayne.emulators.flags import named_flags
from starpayne.errors import LabelError, RecipeError
from starpayne.labels import LabelSpace
from starpayne.machine import cores
from starpayne.wavelengths import check_wavelength, convert_medium

CHANNELS = ("flux", "log10_continuum")
"""What an emulator may give at each wavelength: its quantity (normalised flux, where nothing else is said), and log10
of the continuum flux. The first channel has the name flux in any case; ``SpectralDomain.quantity`` says what it is."""

PIECE = 8192
"""Wavelengths that are predicted at once."""

PRECISIONS = ("float32", "bfloat16")
"""Of a large network's matrix products, whose sums are float32 in either case; and of weights as they are stored."""

PREDICT_MEMORY = 256 * 2**20
"""Bytes of intermediate arrays that the compiled calls of ``predict`` may use on a CPU, all that are under way."""

WORTHWHILE = 16 * 2**20
"""Bytes of intermediate arrays of a call that is not worth sharing between cores."""

PART_OF_GPU = 1 / 4
"""Of the memory of a GPU that JAX may use, what one compiled call may use there."""

# GPUs round the factors of float32 products to 10 bits unless told otherwise, which moved fluxes by 2e-4: more than
# a model's fingerprint may differ. Whoever has set this, or JAX_DEFAULT_MATMUL_PRECISION, keeps what was set.
if jax.config.jax_default_matmul_precision is None:  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_default_matmul_precision", "highest")


def room() -> int:
    """Return the bytes of intermediate arrays that compiled calls may use together on this machine."""
    if jax.default_backend() == "cpu":
        return PREDICT_MEMORY
    return max(PREDICT_MEMORY, int(PART_OF_GPU * (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)))


class HostArray:
    """A float64 array kept on the host as static, hashable data of a pytree (JAX would round it to float32)."""

    def __init__(self, values: ArrayLike) -> None:
        self.values = np.array(values, dtype=np.float64)
        self.values.setflags(write=False)
        self._hash = hash(self.values.tobytes())

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostArray) and np.array_equal(self.values, other.values)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"HostArray({self.values.shape}, {self.values.min():g} to {self.values.max():g})"


@dataclass(frozen=True)
class Prediction:
    """Predicted spectra with what a user should know about them.

    Args:
        wavelength: (n_wavelength,) Å in ``medium``, as asked for.
        flux: (n, n_wavelength) float32 normalised flux, or (n_wavelength,) for one label vector; of an intensity
            emulator the normalised intensity π I / F_c.
        medium: of the wavelengths.
        flags: for each label vector, the flags that apply (``extrapolated``, ``no_molecules``, …).
        continuum: same shape as flux, erg s⁻¹ cm⁻² Å⁻¹, where the emulator was trained on it; else None.
        quantity: "flux" or "intensity", what ``flux`` holds.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    medium: str
    flags: tuple[tuple[str, ...], ...]
    continuum: np.ndarray | None = None
    quantity: str = "flux"

    @property
    def specific_intensity(self) -> np.ndarray | None:
        """I, as ``flux``, in erg s⁻¹ cm⁻² Å⁻¹ sr⁻¹, where an intensity emulator knows the continuum too; else None."""
        if self.quantity != "intensity" or self.continuum is None:
            return None
        return self.flux * self.continuum / np.float32(np.pi)


class BoundEmulator(eqx.Module):
    """An emulator on fixed wavelengths: a pytree whose call is a pure function to jit, vmap and differentiate."""

    emulator: eqx.AbstractVar[Emulator]
    wavelength: eqx.AbstractVar[HostArray]

    @abc.abstractmethod
    def outputs(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        """Return all channels at the bound wavelengths for one vector of physical labels."""

    def batch(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        """Return all channels for many label vectors; the same as vmap, and faster where a network can share work."""
        return jax.vmap(self.outputs)(labels)

    def values(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        """Return :meth:`batch` in the fastest way there is, which may have no derivative."""
        return self.batch(labels)

    def whole(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        """Return :meth:`outputs`, never computed in pieces: the form in which it can be written as a graph."""
        return self.outputs(labels)

    @abc.abstractmethod
    def at(self, emulator: Emulator, columns: Int[Array, " subset"] | None = None) -> BoundEmulator:
        """Return this with other weights, and only the wavelengths of the given indices (for training steps)."""

    @property
    @abc.abstractmethod
    def floats_per_spectrum(self) -> int:
        """How many intermediate float32 numbers one spectrum takes (to choose batch sizes)."""

    @property
    def spectra_at_once(self) -> int | None:
        """How many spectra a training step should put through together; None for all of its batch."""
        return None

    def __call__(self, labels: Float[Array, " labels"]) -> Float[Array, " wavelengths"]:
        """Return the normalised flux (or intensity) at the bound wavelengths for one vector of physical labels."""
        return self.outputs(labels)[0]

    # Equinox compares and hashes modules by their arrays, which cannot be hashed; jax.jit(bound) needs a hash.
    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class Emulator(eqx.Module):
    """Base of all emulators; scaling of the labels and of the output is inside, stored with the weights.

    Subclasses hold their arrays as leaves and everything else as static fields, and say how to rebuild their
    skeleton from plain JSON data (``config`` and ``skeleton``), which is how models are loaded without running code.
    """

    center: eqx.AbstractVar[Float[Array, "channels _"]]
    width: eqx.AbstractVar[Float[Array, "channels _"]]
    space: eqx.AbstractVar[LabelSpace]
    domain: eqx.AbstractVar[SpectralDomain]
    channels: eqx.AbstractVar[tuple[str, ...]]
    architecture: ClassVar[str]
    rounding: ClassVar[float] = 1e-4
    """Largest difference in flux by which another machine's arithmetic may move a spectrum."""

    @abc.abstractmethod
    def bind(self, wavelength: np.ndarray) -> BoundEmulator:
        """Bind to checked float64 wavelengths in the emulator's own medium."""

    @abc.abstractmethod
    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Return name → (input axes, output axes) of the hidden matrices, for optimizers that treat them as such."""

    def with_products(self, precision: str) -> Emulator:
        """Return the emulator with its large matrix products in "float32" or "bfloat16" (for GPUs).

        It is a way of computing, not part of the model: it is not stored. An emulator without large products is
        returned as it is.

        Raises:
            RecipeError: for a precision that is not known.
        """
        if precision not in PRECISIONS:
            raise RecipeError(f"precision = {precision!r} is not known; choose one of {', '.join(PRECISIONS)}")
        return self

    def network_targets(self, targets: Float[np.ndarray, "n channels m"]) -> Float[np.ndarray, "n channels m"]:
        """Return what ``center + width * network`` has to be for these spectra: by default the spectra themselves."""
        return targets

    @property
    def hidden_width(self) -> int:
        """Units of the hidden layers, by which μP scales learning rates; 0 for an emulator without hidden layers."""
        return 0

    @property
    def readouts(self) -> tuple[str, ...]:
        """Names of the matrices from the last hidden layer to the output (μP treats them apart)."""
        return ()

    @property
    @abc.abstractmethod
    def native_wavelength(self) -> np.ndarray:
        """The emulator's own wavelengths (Å, its medium): its pixels, or a log-λ grid at its training sampling."""

    @property
    @abc.abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain JSON data from which :meth:`skeleton` rebuilds the module, weights apart."""

    @classmethod
    @abc.abstractmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> Emulator:
        """Return a module of this architecture with weights to be filled; RecipeError for impossible settings."""

    def on(self, wavelength: ArrayLike | None = None, medium: str | None = None) -> BoundEmulator:
        """Bind the emulator to wavelengths, once, on the host and in float64.

        Args:
            wavelength: (n,) Å, increasing, within the emulator's range; by default its own wavelengths.
            medium: of the wavelengths given; by default the emulator's own. They are converted where they differ.

        Returns:
            a pytree ``bound``; ``bound(labels)`` is the pure function to jit, vmap and differentiate.

        Raises:
            WavelengthError: outside the range, unsorted, not finite, or traced by JAX.

        Example:
            ``flux = jax.vmap(emulator.on(wavelength))(labels)``
        """
        if wavelength is None:
            return self.bind(self.native_wavelength)
        return self.bind(self.domain.prepare(wavelength, medium))

    def predict(
        self,
        labels: ArrayLike | Mapping[str, float],
        wavelength: ArrayLike | None = None,
        medium: str | None = None,
        extrapolate: bool = False,
        precision: str | None = None,
    ) -> Prediction:
        """Predict spectra on the host, in chunks that fit in memory.

        Args:
            labels: a mapping name → value, (n_labels,) or (n, n_labels), physical units.
            wavelength, medium: as for :meth:`on`.
            extrapolate: allow labels outside the training domain, and flag them ``extrapolated``.
            precision: of the matrix products of a transformer, as of :meth:`with_products`; by default the emulator's
                own, which of a model that was loaded is "float32". On a GPU "bfloat16" is ten times as fast; it moves
                fluxes by some 1e-4, single pixels by up to 1e-2.

        Raises:
            LabelError: a label is unknown, missing, NaN or, without ``extrapolate``, outside its range.
            WavelengthError: as for :meth:`on`.
            RecipeError: for a precision that is not known.
        """
        vectors = self.space.vector(labels) if isinstance(labels, Mapping) else np.asarray(labels, np.float64)
        self.space.check(vectors, extrapolate)
        if vectors.ndim > 2:
            raise LabelError(f"labels must be one vector or a table (n, n_labels), got shape {vectors.shape}")
        rows = np.atleast_2d(vectors)
        if wavelength is None:
            own = self.native_wavelength
            asked = convert_medium(own, self.domain.medium, medium or self.domain.medium)
        else:
            asked = check_wavelength(wavelength)
            own = self.domain.prepare(asked, medium)
        outputs = predict_in_chunks(self if precision is None else self.with_products(precision), rows, own)
        flux, continuum = outputs[:, 0], None
        if "log10_continuum" in self.channels:
            continuum = 10.0 ** outputs[:, self.channels.index("log10_continuum")]
        one = vectors.ndim == 1
        return Prediction(
            wavelength=asked,
            flux=flux[0] if one else flux,
            medium=medium or self.domain.medium,
            flags=named_flags(self.space, self.domain.physics, rows),
            continuum=continuum[0] if one and continuum is not None else continuum,
            quantity=self.domain.quantity,
        )


@eqx.filter_jit
def _batch(bound: BoundEmulator, labels: Float[Array, "n labels"]) -> Float[Array, "n channels wavelengths"]:
    return bound.values(labels)


def predict_in_chunks(emulator: Emulator, rows: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """Return (n, channels, n_wavelength) float32; chunks over wavelengths and label vectors bound the memory.

    On a CPU one call for each core is under way: operations that share the cores between them wait for one another
    after each (a TransformerPayne of 128×8 on two cores: 0.6 of a plain matrix product's speed, and 0.7 this way).
    """
    outputs = np.empty((len(rows), len(emulator.channels), len(wavelength)), np.float32)
    if not outputs.size:
        return outputs
    calls = cores() if jax.default_backend() == "cpu" else 1
    bound = {0: emulator.bind(wavelength[:PIECE])}
    each = 4 * bound[0].floats_per_spectrum
    most = max(-(-len(rows) // calls), WORTHWHILE // each)
    size = int(np.clip(room() // (calls * each), 1, min(most, len(rows))))
    places = list(itertools.product(range(0, len(wavelength), PIECE), range(0, len(rows), size)))
    calls = min(calls, len(places))
    compiled, one_at_a_time = set(), Lock()

    def fill(place: tuple[int, int]) -> None:
        start, first = place
        part = rows[first : first + size]
        # The last chunk is padded to the common size, so that it is compiled once; nor do two threads compile the same.
        padded = jnp.asarray(np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]), jnp.float32)
        with one_at_a_time:
            if start not in bound:
                bound.clear()
                bound[start] = emulator.bind(wavelength[start : start + PIECE])
            own = bound[start]
            if calls > 1 and start not in compiled:
                _batch.lower(own, padded).compile()
                compiled.add(start)
        outputs[first : first + size, :, start : start + PIECE] = np.asarray(_batch(own, padded))[: len(part)]

    if calls == 1:
        for place in places:
            fill(place)
    else:
        with ThreadPoolExecutor(calls, "starpayne-predict") as threads:
            for _ in threads.map(fill, places):
                pass
    return outputs
