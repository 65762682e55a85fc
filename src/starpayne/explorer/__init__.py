"""The explorer: an interactive page that shows what a model predicts, beside an observed star, and fits that star."""

from starpayne.explorer.notebook import explore
from starpayne.explorer.server import serve

__all__ = ["explore", "serve"]
