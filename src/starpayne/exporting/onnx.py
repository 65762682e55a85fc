"""An emulator as an ONNX graph, for programs that know neither Python nor JAX."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from starpayne.emulators import Emulator
from starpayne.errors import MissingExtraError


def write_onnx(emulator: Emulator, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Write the emulator on its own wavelengths; return what runs it, labels → (channels, wavelengths).

    Input ``labels`` (stars, n_labels) float32, physical units; outputs ``spectra`` (stars, channels, wavelengths)
    float32 and ``wavelength`` (wavelengths,) float64, Å. The metadata hold label names, units and bounds, the channels
    and the medium.

    Raises:
        MissingExtraError: without the ``onnx`` extra.
    """
    try:
        import onnx
        import onnxruntime
        from jax2onnx import to_onnx
    except ImportError as error:
        raise MissingExtraError(f'export to onnx needs an extra: pip install "starpayne[onnx]" ({error})') from error
    for name in ("onnx_ir", "jax2onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    bound = emulator.on()
    graph: Any = to_onnx(
        jax.vmap(bound.whole), [("stars", len(emulator.space))], model_name="starpayne", input_names=["labels"],
        output_names=["spectra"],
    )  # fmt: skip
    _add_wavelength(graph, bound.wavelength.values, onnx)
    space, domain = emulator.space, emulator.domain
    facts = {
        "labels": [{"name": x.name, "unit": x.unit, "low": x.low, "high": x.high} for x in space.labels],
        "constraints": [str(constraint) for constraint in space.constraints],
        "channels": list(emulator.channels), "quantity": domain.quantity, "medium": domain.medium,
        "architecture": emulator.architecture,
    }  # fmt: skip
    for name, value in facts.items():
        graph.metadata_props.add(key=name, value=json.dumps(value))
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(labels: np.ndarray) -> np.ndarray:
        found = session.run(["spectra"], {"labels": np.asarray(labels, np.float32)[None]})[0]
        return np.asarray(found)[0]

    return run


def _add_wavelength(graph: Any, wavelength: np.ndarray, onnx: Any) -> None:
    """Give the graph a second output, a constant: the wavelengths."""
    tensor = onnx.numpy_helper.from_array(np.asarray(wavelength, np.float64), "wavelength_value")
    graph.graph.node.append(onnx.helper.make_node("Constant", [], ["wavelength"], value=tensor))
    stated = onnx.helper.make_tensor_value_info("wavelength", onnx.TensorProto.DOUBLE, [len(wavelength)])
    graph.graph.output.append(stated)
