"""See inside: what a spectrum tells of each label, and what the attention of a transformer looks at."""

from starpayne.inside.atlas import Atlas, atlas
from starpayne.inside.likeness import ElementTest, compare
from starpayne.inside.sensitivity import Sensitivity, sensitivity

__all__ = ["Atlas", "ElementTest", "Sensitivity", "atlas", "compare", "sensitivity"]
