"""Where a model is: a folder, or the name of one that comes with starpayne."""

from __future__ import annotations

from pathlib import Path

SHIPPED = "mgb"
"""The model that comes with starpayne: TransformerPayne on the Mg b window, 5160 to 5210 Å, with 17 labels."""

FOLDER = Path(__file__).parent.parent / "models"


def locate(model: str | Path | None = None) -> Path:
    """Return the folder of a model.

    Args:
        model: a folder; or the name of a model that comes with starpayne, where no folder of that name exists; None
            for the one model that everybody has.

    Example:
        >>> locate("mgb") == locate()
        True
    """
    if model is None:
        return FOLDER / SHIPPED
    path = Path(model)
    return FOLDER / SHIPPED if str(path) == SHIPPED and not path.exists() else path
