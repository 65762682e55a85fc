"""See inside: what a spectrum tells of each label, and what the attention of a transformer looks at."""

from starpayne.inside.sensitivity import Sensitivity, sensitivity

__all__ = ["Sensitivity", "sensitivity"]
