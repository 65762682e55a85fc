"""The settings of each architecture: what the ``[architecture]`` table of a recipe may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starpayne.emulators.gaussian_process import KERNELS
from starpayne.errors import RecipeError


@dataclass(frozen=True)
class PayneArchitecture:
    """A fully connected network.

    Args:
        hidden: units of each hidden layer.
        activation: "leaky_relu" (as published), "gelu" or "silu".
        residual: add every hidden layer to what enters it (hidden layers of one width; each normalised first).
    """

    hidden: tuple[int, ...] = (300, 300)
    activation: str = "gelu"
    residual: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for units in self.hidden:
            check_number("hidden", units, 1, 10**6, whole=True)


@dataclass(frozen=True)
class TransformerArchitecture:
    """A TransformerPayne (arXiv:2407.05751).

    Args:
        width: d, a multiple of ``head_width``.
        depth: blocks L.
        tokens: label tokens T.
        head_width: width of an attention head.
        periods: shortest and longest period of the wavelength encoding in log10(λ/Å); None fits them to the grid
            (three pixels to four times its range), which leaves no encoding width unused on a short window.
            The published range is (1e-6, 10).
    """

    width: int = 64
    depth: int = 4
    tokens: int = 16
    head_width: int = 32
    periods: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, most in (("width", 2**14), ("depth", 2**10), ("tokens", 2**12), ("head_width", 2**14)):
            check_number(name, getattr(self, name), 1, most, whole=True)
        if self.periods is not None:
            object.__setattr__(self, "periods", tuple(self.periods))


@dataclass(frozen=True)
class ConvolutionalArchitecture:
    """Dense layers, then transposed convolutions up to the pixels (the ancestor in The_Payne's code).

    Args:
        hidden: units of each dense layer before the one that makes the sequence.
        filters: channels of the sequence.
        activation: "leaky_relu" (as published), "gelu" or "silu".
    """

    hidden: tuple[int, ...] = (300, 300)
    filters: int = 64
    activation: str = "leaky_relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for units in self.hidden:
            check_number("hidden", units, 1, 10**6, whole=True)
        check_number("filters", self.filters, 1, 10**4, whole=True)


@dataclass(frozen=True)
class AdditiveArchitecture:
    """Optical depths of single elements, added up: a small network for each [X/Fe] label.

    Args:
        hidden: units of each layer of every element's network.
        latents: numbers made of all labels that every element's network sees; 0 for strictly additive elements.
        activation: "leaky_relu", "gelu" or "silu".
    """

    hidden: tuple[int, ...] = (64, 64, 64, 64, 64, 64)
    latents: int = 4
    activation: str = "gelu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for units in self.hidden:
            check_number("hidden", units, 1, 10**6, whole=True)
        check_number("latents", self.latents, 0, 10**4, whole=True)


@dataclass(frozen=True)
class PolynomialArchitecture:
    """A polynomial in the labels at every pixel, in closed form (degree 2: The Cannon).

    Args:
        degree: largest total degree of a term.
        ridge: weight of the squared coefficients, in units of one spectrum; None chooses it by generalised
            cross-validation (Golub, Heath & Wahba 1979).
    """

    degree: int = 2
    ridge: float | None = None

    def __post_init__(self) -> None:
        check_number("degree", self.degree, 1, 20, whole=True)
        if self.ridge is not None:
            check_number("ridge", self.ridge, 0.0, 1e12, whole=False)


@dataclass(frozen=True)
class GaussianProcessArchitecture:
    """A Gaussian process over the labels with one length scale per label, in closed form.

    Args:
        kernel: "matern52" or "squared_exponential".
        least_noise: smallest variance of the noise over that of the process. Less than 1e-5 makes the weights of the
            spectra so large that their sum loses in float32 more than it gains.
        likelihood_spectra: training spectra on which the likelihood is maximised, drawn by the recipe's seed; all
            of them then make the prediction.
        iterations: of that maximisation, at most.
    """

    kernel: str = "matern52"
    least_noise: float = 1e-5
    likelihood_spectra: int = 700
    iterations: int = 100

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise RecipeError(f"kernel = {self.kernel!r} is not known; choose one of {', '.join(KERNELS)}")
        check_number("least_noise", self.least_noise, 1e-12, 1.0, whole=False)
        check_number("likelihood_spectra", self.likelihood_spectra, 2, 10**4, whole=True)
        check_number("iterations", self.iterations, 1, 10**4, whole=True)


ClosedFormArchitecture = PolynomialArchitecture | GaussianProcessArchitecture
NetworkArchitecture = PayneArchitecture | TransformerArchitecture | ConvolutionalArchitecture | AdditiveArchitecture
Architecture = NetworkArchitecture | ClosedFormArchitecture

ARCHITECTURE_SETTINGS: dict[str, type[Architecture]] = {
    "payne": PayneArchitecture,
    "transformer": TransformerArchitecture,
    "convolutional": ConvolutionalArchitecture,
    "additive": AdditiveArchitecture,
    "polynomial": PolynomialArchitecture,
    "gaussian_process": GaussianProcessArchitecture,
}


def check_number(name: str, value: Any, low: float, high: float, whole: bool) -> None:
    """Raise RecipeError, naming the setting, for what is not a number in the range."""
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise RecipeError(f"{name} = {value!r} is not a {'whole ' if whole else ''}number")
    if not low <= value <= high:
        raise RecipeError(f"{name} = {value} is outside the range {low} to {high}")
