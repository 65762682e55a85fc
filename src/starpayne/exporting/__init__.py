"""Models for other programs: a plain ``.npz`` with a reader in NumPy, an ONNX graph, or a folder of half the size."""

from starpayne.exporting.writing import KINDS, Exported, export

__all__ = ["KINDS", "Exported", "export"]
