"""The settings of a fine-tuning: what moves, how far and how fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from starpayne.bundle import Model
from starpayne.errors import RecipeError
from starpayne.training.architectures import check_number
from starpayne.training.recipe import Recipe

Moves = Literal["auto", "correction", "all", "head", "labels", "lora"]
MOVES = get_args(Moves)

FEW, MANY = 50, 500
"""Under 50 spectra each is held out once, in five folds; from 500 on the best weights are kept as they are, instead of
training once more on all spectra."""

FAR = 10.0
"""A model whose error is so many times that on its own validation spectra is as good as untrained: of another window it
knows nothing but how lines look."""

VALIDATIONS = 20
"""How often the error on held-out spectra is measured on the way."""


@dataclass(frozen=True)
class FineTuning:
    """How to fine-tune a trained emulator.

    Args:
        moves: "correction" leaves the weights as they are and adds the mean of a Gaussian process over the difference
            from the new spectra. Or what is trained: "all" weights, the "head" (the last layers), the "labels" (the
            embedding of the labels), or "lora": low-rank updates of all matrices, stored beside the base model
            (arXiv:2106.09685). "auto" is "correction", unless the base lacks labels, channels or wavelengths of
            the grid, or steps or a learning rate are given: then it is "all".
        rank: of the updates of "lora".
        learning_rate: peak value, for AdamW; by default 2e-4 under 50 spectra and 6e-4 above, five times as much for
            "lora". Where the model is as good as untrained on the spectra (see ``FAR``), optimizer and learning rate
            are those of its own training.
        steps: updates at most; fewer are taken where spectra that were held out say so. By default 200 under 50
            spectra, 400 under 500, and 1,000 above, twice as many for "lora"; 1,000 and 3,000 where the model is as
            good as untrained.
        batch_spectra: spectra per step, at most those there are.
        batch_wavelengths: random wavelengths per step for an emulator that takes any; 0 for all.
        ema: as of :class:`~starpayne.training.Recipe`.
        seed: of everything random.

    Example:
        >>> FineTuning(moves="lora", rank=8).rank
        8
    """

    moves: Moves = "auto"
    rank: int = 4
    learning_rate: float | None = None
    steps: int | None = None
    batch_spectra: int = 32
    batch_wavelengths: int = 256
    ema: float = 0.98
    seed: int = 0

    def __post_init__(self) -> None:
        if self.moves not in MOVES:
            raise RecipeError(f"moves = {self.moves!r} is not known; choose one of {', '.join(MOVES)}")
        for name, low, high in (
            ("rank", 1, 10**4), ("learning_rate", 0.0, 10.0), ("steps", 1, 10**9), ("batch_spectra", 1, 10**6),
            ("batch_wavelengths", 0, 10**7), ("ema", 0.0, 0.999999), ("seed", 0, 2**31 - 1),
        ):  # fmt: skip
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low, high, whole=name not in ("learning_rate", "ema"))
        if self.steps is not None or self.learning_rate is not None:
            if self.moves == "correction":
                raise RecipeError("a correction is solved for; steps and learning_rate belong to what is trained")
            if self.moves == "auto":
                object.__setattr__(self, "moves", "all")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    def filled(self, base: Model, n: int, far: bool) -> FineTuning:
        """Return the settings with what was left open filled in.

        Args:
            base: the model to be fine-tuned.
            n: how many spectra there are.
            far: whether the adapted model is as good as untrained on them (another window, say).

        Source: a TransformerPayne of width 64, by hand. With 10 spectra of another code, 1.5e-4 is better than 5e-5 and
        1e-3; with 100, 6e-4 is better than 2e-4 and 2e-3. With 50 of another window 5e-3 is better than 2e-3 and 6e-4.
        """
        rate = (2e-4 if n < FEW else 6e-4) * (5 if self.moves == "lora" else 1)
        # Low-rank updates need twice the steps: with 100 spectra, 87 % of the gain after 400 of them, 90 % after 800.
        steps = (200 if n < FEW else 400 if n < MANY else 1000) * (2 if self.moves == "lora" else 1)
        if far:
            rate, steps = _stored(base).learning_rate, 1000 if n < FEW else 3000
        rate = rate if self.learning_rate is None else self.learning_rate
        return replace(self, learning_rate=rate, steps=self.steps or steps)

    def recipe(self, base: Model, n: int, far: bool = False) -> Recipe:
        """Return the recipe of the steps: the base model's own architecture and loss, and these settings.

        Raises:
            RecipeError: for a model that does not say how it was trained, or has no steps to go on with.
        """
        mine, recipe = self.filled(base, n, far), _stored(base)
        steps = int(mine.steps or 1)
        if not far:
            recipe = recipe.replace(optimizer="adamw", reference_width=0, weight_decay=0.0)
        return recipe.replace(
            learning_rate=mine.learning_rate, schedule="cosine", warmup=0.05, ema=self.ema, steps=steps,
            batch_spectra=self.batch_spectra, batch_wavelengths=self.batch_wavelengths,
            validate_every=max(1, steps // VALIDATIONS), seed=self.seed,
        )  # fmt: skip


def _stored(base: Model) -> Recipe:
    """Return the recipe by which a model was trained."""
    stored = (base.training.get("identity") or {}).get("recipe")
    if not stored:
        raise RecipeError("the model does not say by what recipe it was trained, which fine-tuning goes on from")
    recipe = Recipe.from_dict(stored)
    if recipe.closed_form:
        raise RecipeError(
            f"a {recipe.emulator} is solved in closed form and cannot be fine-tuned; correct it (--moves correction) "
            "where the grid has all of its labels and outputs, or train it afresh"
        )
    return recipe
