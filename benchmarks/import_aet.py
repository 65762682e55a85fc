"""Whether models that astro-emulators-toolkit (AET) writes predict the same here: ``--aet-python PATH``, its Python.

In AET's own environment a MLP and some TransformerPaynes are made, their weights drawn, saved as bundles with a
fingerprint, and evaluated at random labels and wavelengths; here they are imported, saved, loaded, and evaluated at the
same. Printed is the largest difference in flux, whose lines are a tenth of the continuum deep or so.
"""

from __future__ import annotations

# AET has an environment of its own.
# pyright: reportMissingImports=false
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LABELS = {"teff": (4000.0, 7000.0), "logg": (1.0, 5.0), "feh": (-2.5, 0.5), "mg_fe": (-0.4, 0.8)}
WAVELENGTH = np.linspace(5000.0, 5100.0, 2001)
STARS = 20

TRANSFORMERS: dict[str, tuple[dict[str, Any], str]] = {
    "AET's preset, λ in Å": ({}, "linear"),
    "128×8 in log10 λ": (
        {"dim": 128, "no_layers": 8, "no_tokens": 16, "dim_ff_multiplier": 4, "min_period": 1e-6, "max_period": 10.0},
        "log10",
    ),
    "depth-scaled, α ≠ 1, silu": (
        {"dim": 64, "no_layers": 6, "reference_depth": 2, "alpha_att": 2.0, "alpha_emb": 0.7, "activation": "silu",
         "min_period": 1e-5, "max_period": 1.0},
        "log10",
    ),
    "wavelengths scaled to 0 … 1": ({"min_period": 1e-3, "max_period": 2.0}, "scaled"),
}  # fmt: skip
"""Changes of AET's preset, and what is passed as wavelengths."""


def write(folder: Path) -> None:
    """Make the bundles, and what AET predicts (in AET's environment)."""
    os.environ["JAX_ENABLE_X64"] = "1"
    from dataclasses import replace

    import jax
    from astro_emulators_toolkit import Emulator
    from astro_emulators_toolkit.bundle.release import prepare_bundle_release
    from astro_emulators_toolkit.presets import payne_flux_mlp, transformer_payne_flux

    random = np.random.default_rng(5)
    low, high = (np.array(side) for side in zip(*LABELS.values(), strict=True))
    unit = random.random((STARS, len(LABELS))).astype(np.float32)
    np.save(folder / "labels.npy", low + unit.astype(np.float64) * (high - low))

    def save(name: str, cfg: Any, inputs: dict[str, Any], extra: dict[str, Any], scaled: dict[str, Any]) -> None:
        pixels = np.zeros((STARS, len(WAVELENGTH)), np.float32)
        emulator = Emulator.from_config(cfg, init_example={"x": inputs, "y": {"flux": pixels}})
        emulator.params = jax.tree_util.tree_map(
            lambda leaf: (leaf + 0.02 * random.normal(size=leaf.shape)).astype(leaf.dtype), emulator.params
        )
        limits = {"min_tree": {"parameters": low.tolist()}, "max_tree": {"parameters": high.tolist()}}
        for side, value in scaled.items():
            limits[side]["wavelengths"] = value
        spec = {
            "inputs": {
                "structure_tree": dict.fromkeys(inputs),
                "channel_names_tree": dict.fromkeys(inputs) | {"parameters": list(LABELS)},
                "leaf_units_tree": extra.get("units"),
            },
            "reference_scaling_inputs": limits,
            "reference_scaling_outputs": {"min_tree": {"flux": 0.9}, "max_tree": {"flux": 1.0}},
        }  # fmt: skip
        emulator.save_bundle(folder / name / "raw", spec=spec, extras={"wavelength_angstrom": WAVELENGTH})
        one = {key: value[:1] for key, value in inputs.items()}
        prepare_bundle_release(
            folder / name / "raw", path=folder / name / "bundle", release_name=name, release_version="1",
            fingerprint_inputs=one,
        )  # fmt: skip
        flux = np.asarray(emulator.predict(inputs)["flux"], np.float64).reshape(STARS, -1)
        np.save(folder / name / "flux.npy", 0.9 + 0.1 * flux)

    save("mlp", payne_flux_mlp(), {"parameters": unit}, {}, {})
    for i, (changes, scale) in enumerate(TRANSFORMERS.values()):
        cfg = transformer_payne_flux()
        cfg = cfg.with_updates(model=replace(cfg.model, params={**cfg.model.params, **changes}))
        given = np.log10(WAVELENGTH) if scale == "log10" else WAVELENGTH
        ends = (4990.0, 5110.0) if scale == "scaled" else (0.0, 1.0)
        given = (given - ends[0]) / (ends[1] - ends[0])
        waves = np.broadcast_to(given, (STARS, len(given)))
        units = {"wavelengths": "log10(Angstrom)" if scale == "log10" else "Angstrom", "parameters": None}
        save(f"transformer{i}", cfg, {"parameters": unit, "wavelengths": waves}, {"units": units},
             {"min_tree": ends[0], "max_tree": ends[1]})  # fmt: skip


def compare(folder: Path, name: str) -> tuple[float, float, float]:
    """Return the largest difference from AET, that of the fingerprint, and the spread of the flux that is predicted."""
    from starpayne import bundle
    from starpayne.importers import aet

    source = folder / name / "bundle"
    if not aet.recognises(source):
        raise SystemExit(f"{source} is not recognised")
    model = aet.read(source, medium="air")
    saved = bundle.save(model, folder / name / "model")
    if not bundle.verify(saved).reproduced:
        raise SystemExit(f"{saved} does not verify")
    emulator = bundle.load(saved).emulator
    expected = np.load(folder / name / "flux.npy")
    flux = emulator.predict(np.load(folder / "labels.npy"), WAVELENGTH).flux
    return float(np.max(np.abs(flux - expected))), model.training["imported"]["fingerprint_difference"], expected.std()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aet-python", help="Python of the environment that holds AET")
    parser.add_argument("--write", type=Path, help="(used by itself, in that environment)")
    given = parser.parse_args()
    if given.write is not None:
        write(given.write)
        return
    if given.aet_python is None:
        parser.error("--aet-python is needed")
    with tempfile.TemporaryDirectory() as place:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([given.aet_python, __file__, "--write", place], check=True, env=environment)
        print(f"{'':30} {'largest difference':>19} {'of the fingerprint':>19} {'spread of the flux':>19}")
        worst = 0.0
        for name, words in {"mlp": "MLP 128×128", **{f"transformer{i}": w for i, w in enumerate(TRANSFORMERS)}}.items():
            difference, fingerprint, spread = compare(Path(place), name)
            worst = max(worst, difference)
            print(f"{words:30} {difference:19.1e} {fingerprint:19.1e} {spread:19.3f}", flush=True)
    if not worst <= 1e-5:
        sys.exit(f"the largest difference, {worst:.1e}, is more than 1e-5")


if __name__ == "__main__":
    main()
