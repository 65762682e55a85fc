"""The attention atlas of a TransformerPayne: what each wavelength attends to, and what each token carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from starpayne.bundle import Model
from starpayne.emulators import Corrected, TransformerPayne
from starpayne.errors import BundleError, SpectrumError
from starpayne.evaluation.rows import held_out
from starpayne.fitting.forward import refuse_intensities
from starpayne.grid import Grid
from starpayne.labels import is_abundance

PIECE = 2048
"""Wavelengths that go through the network together, whatever memory attention takes."""

MOST_WAVELENGTHS = 4_000
"""More are thinned out evenly: the likeness of all pairs of them is computed."""

MEAN_OF = 4_096
"""Rows of the grid whose tokens are averaged."""

IRON = "fe"
"""Name of what [Fe/H] does beyond the elements that are labels: iron, and the elements that are none."""


@dataclass(frozen=True, eq=False)
class Atlas:
    """What a TransformerPayne attends to, over the stars of a grid.

    Args:
        wavelength: (n,) Å of ``medium``; flux (n,) mean normalised flux of the stars.
        attention: (L, heads, n, tokens) mean weight over the stars; sums to one over the tokens.
        spread: (L, heads) standard deviation of the weights over stars, over that over wavelengths: small where the map
            is that of every star.
        labels: names of the K labels.
        gradient: (tokens, K) root mean square over stars of |∂token/∂label| / |token|, labels scaled to [0, 1].
        ablation: (tokens, n) root mean square over stars of the change of the flux when the token is replaced by its
            mean over the grid.
        elements: names of the E elements; response (E, n) mean over stars of |∂flux/∂[X/Fe]|, per dex.
        n_stars: stars averaged over; ``split`` what they are, in words.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    attention: np.ndarray
    spread: np.ndarray
    labels: tuple[str, ...]
    gradient: np.ndarray
    ablation: np.ndarray
    elements: tuple[str, ...]
    response: np.ndarray
    n_stars: int
    split: str
    medium: str

    @property
    def ablation_total(self) -> np.ndarray:
        """(tokens,) the same over all wavelengths: root mean square."""
        return np.sqrt(np.mean(self.ablation**2, axis=1))


def atlas(
    model: Model, grid: Grid, n_stars: int = 32, progress: Callable[[int, int], None] | None = None
) -> Atlas:  # fmt: skip
    """Average the attention of a TransformerPayne over held-out stars of a grid.

    Args:
        model: a TransformerPayne of fluxes.
        grid: its own grid, or another one with the same labels.
        n_stars: of the test spectra, evenly spaced.
        progress: called with the stars done, and their number.

    Raises:
        BundleError: for another architecture; GridError: the grid's labels are not the model's, or no row is left.
    """
    network = model.emulator
    if isinstance(network, Corrected) and isinstance(network.base, TransformerPayne):
        raise BundleError("this is a TransformerPayne with a correction added to it: give the model that it corrects")
    if not isinstance(network, TransformerPayne):
        raise BundleError(
            f"attention is what a TransformerPayne has; this model is of the architecture {network.architecture!r}, "
            "which attends to nothing: give a model that was trained with --emulator transformer"
        )
    refuse_intensities(network)
    if n_stars < 1:
        raise SpectrumError(f"n_stars = {n_stars} must be at least 1")
    held = held_out(model, grid, None, n_stars)
    own = network.native_wavelength
    wavelength = own[:: -(-len(own) // MOST_WAVELENGTHS)]
    encoding = network.bind(wavelength).encoding
    pieces = [encoding[i : i + PIECE] for i in range(0, len(wavelength), PIECE)]
    stars = jnp.asarray(held.labels, jnp.float32)
    mean_token = _mean_token(network, grid)
    sums: dict[str, np.ndarray] = {}

    def add(name: str, value: np.ndarray) -> None:
        sums[name] = sums[name] + value if name in sums else value

    for i, star in enumerate(stars):
        seen = [_look(network, star, mean_token, piece) for piece in pieces]
        weights, spectrum, changed = (
            np.concatenate([np.asarray(part[k], np.float64) for part in seen], axis=axis)
            for k, axis in ((0, 2), (1, 0), (2, 1))
        )
        add("weights", weights)
        add("squares", weights**2)
        add("flux", spectrum)
        add("change", changed**2)
        by_label = np.concatenate([np.asarray(_derivative(network, star, piece), np.float64) for piece in pieces])
        add("response", np.abs(_by_element(network.space.names, by_label)))
        add("slopes", np.asarray(_token_slopes(network, star), np.float64) ** 2)
        if progress is not None:
            progress(i + 1, len(stars))
    n = len(stars)
    mean = sums["weights"] / n
    variance = np.maximum(sums["squares"] / n - mean**2, 0).mean(axis=(2, 3))
    spread = np.sqrt(variance) / np.maximum(mean.std(axis=2).mean(axis=2), 1e-12)
    return Atlas(
        wavelength=wavelength, flux=sums["flux"] / n, attention=mean, spread=spread, labels=network.space.names,
        gradient=np.sqrt(sums["slopes"] / n), ablation=np.sqrt(sums["change"] / n),
        elements=elements_of(network.space.names),
        response=sums["response"] / n, n_stars=n, split=held.split, medium=network.domain.medium,
    )  # fmt: skip


def elements_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the elements of a label table: those whose abundances are labels, then iron where [Fe/H] is one."""
    found = tuple(name.removesuffix("_fe") for name in names if is_abundance(name))
    return (*found, IRON) if "feh" in names else found


def _by_element(names: tuple[str, ...], derivative: np.ndarray) -> np.ndarray:
    """Return (E, n) derivatives by element of those (n, K) by label.

    [X/Fe] held, [Fe/H] moves every element: less what the labelled ones do, iron and those that are no labels remain,
    and what the structure of the atmosphere does.
    """
    columns = [derivative[:, i] for i, name in enumerate(names) if is_abundance(name)]
    if "feh" in names:
        columns.append(derivative[:, names.index("feh")] - np.sum(columns, axis=0))
    return np.array(columns).reshape(len(columns), len(derivative))


def _mean_token(network: TransformerPayne, grid: Grid) -> Float[Array, "tokens d"]:
    order = [grid.space.names.index(name) for name in network.space.names]
    labels = grid.labels[grid.usable(range(len(grid.labels)))][:, order]
    labels = labels[network.space.inside(labels)]
    return jnp.mean(network.tokens(jnp.asarray(labels[:: -(-len(labels) // MEAN_OF)], jnp.float32)), axis=0)


@eqx.filter_jit
def _look(
    network: TransformerPayne, star: Float[Array, " K"], mean_token: Float[Array, "tokens d"],
    encoding: Float[Array, "wavelengths d"],
) -> tuple[
    Float[Array, "L heads wavelengths tokens"], Float[Array, " wavelengths"], Float[Array, "tokens wavelengths"]
]:  # fmt: skip
    """Return attention, flux, and the change of the flux as each token is replaced by its mean."""
    tokens = network.tokens(star[None])
    spectra, weights = network.watched(tokens, encoding)
    places = jnp.arange(tokens.shape[1])

    def without(place: Array) -> Array:
        replaced = tokens.at[0, place].set(mean_token[place])
        return network.watched(replaced, encoding)[0][0, 0] - spectra[0, 0]

    return weights[:, 0].transpose(0, 2, 1, 3), spectra[0, 0], jax.lax.map(without, places)


@eqx.filter_jit
def _derivative(
    network: TransformerPayne, star: Float[Array, " K"], encoding: Float[Array, "wavelengths d"]
) -> Float[Array, "wavelengths K"]:
    return jax.jacfwd(lambda labels: network.watched(network.tokens(labels[None]), encoding)[0][0, 0])(star)


@eqx.filter_jit
def _token_slopes(network: TransformerPayne, star: Float[Array, " K"]) -> Float[Array, "tokens K"]:
    """Return |∂token/∂label| / |token| with the labels scaled to [0, 1]."""
    space = network.space
    unit = space.scale(star)

    def tokens(u: Array) -> Array:
        return network.tokens(space.unscale(u)[None])[0]

    slopes = jax.jacfwd(tokens)(unit)
    size = jnp.linalg.norm(tokens(unit), axis=-1)
    return (jnp.linalg.norm(slopes, axis=1) / size[:, None])[:, : len(space)]
