"""Where a model is: a folder, or the name of one that comes with starpayne."""

from __future__ import annotations

from pathlib import Path

SHIPPED = "mgb"
"""The model that is meant where none is named: TransformerPayne on the Mg b window, 5160 to 5210 Å, with 17 labels."""

FOLDER = Path(__file__).parent.parent / "models"


def shipped_models() -> list[str]:
    """Return the names of the models that come with starpayne."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def locate(model: str | Path | None = None) -> Path:
    """Return the folder of a model.

    Args:
        model: a folder; or the name of a model that comes with starpayne, where no folder of that name exists; None
            for ``mgb``.

    Example:
        >>> locate("mgb") == locate()
        True
    """
    if model is None:
        return FOLDER / SHIPPED
    path = Path(model)
    return FOLDER / str(path) if str(path) in shipped_models() and not path.exists() else path
