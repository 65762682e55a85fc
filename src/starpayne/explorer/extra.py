"""The optional libraries of the page, imported in one place."""

from __future__ import annotations

from typing import Any

from starpayne.errors import MissingExtraError


def panel() -> Any:
    """Return the module ``panel``, ready for pages.

    Raises:
        MissingExtraError: without the ``explorer`` extra.
    """
    try:
        import bokeh.models  # noqa: F401
        import panel as pn
    except ImportError as error:
        raise MissingExtraError(f'the explorer needs an extra: pip install "starpayne[explorer]" ({error})') from error
    pn.extension("filedropper", notifications=False)
    return pn
