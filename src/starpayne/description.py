"""What a model or a grid is, in a few facts: for people to read, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starpayne.labels import LabelSpace

if TYPE_CHECKING:
    from starpayne.bundle import Model
    from starpayne.grid import Grid

CITE = {
    "payne": "Ting et al. 2019, ApJ 879, 69 (The Payne)",
    "transformer": "Różański et al. 2024, arXiv:2407.05751 (TransformerPayne)",
    "corrected": "Kennedy & O'Hagan 2000, Biometrika 87, 1 (a Gaussian process over the difference of two codes)",
}
"""Whom to cite for an architecture that others have invented."""

CITE_SOURCE = {
    "PySME": "Wehrhahn et al. 2023, A&A 671, A171 (PySME)",
    "Turbospectrum": "Plez 2012, ascl:1205.004 (Turbospectrum)",
    "Gaia-ESO": "Heiter et al. 2021, A&A 645, A106 (Gaia-ESO lines)",
    "PHOENIX": "Husser et al. 2013, A&A 553, A6 (PHOENIX library)",
    "BOSZ": "Bohlin et al. 2017, AJ 153, 234, or Mészáros et al. 2024, A&A 688, A197 (BOSZ)",
    "Korg": "Wheeler et al. 2023, AJ 165, 68 (Korg)",
}
"""Whom to cite for what the grid was made with, by words that its provenance has."""

LIMITS = {
    "no_molecules": "no molecular lines: predictions below 5000 K are flagged",
    "lte": "lines in local thermodynamic equilibrium",
    "plane_parallel": "plane-parallel atmospheres: predictions below log g 1.5 are flagged",
    "undersampled": "sampled too coarsely for the narrowest lines: fits are biased, and all predictions flagged",
}
"""What a physics flag means to those who use a model."""

SOURCE = ("engine", "versions", "line_list", "lines", "atmosphere", "abundances")
"""What of a grid's provenance is said."""


def describe_model(model: Model) -> dict[str, Any]:
    """Return what a model is: labels, wavelengths, physics, training, errors, whom to cite; plain JSON data."""
    emulator, training = model.emulator, model.training
    domain, source = emulator.domain, dict(training.get("source", {}))
    recipe = dict(dict(training.get("identity", {})).get("recipe", {}))
    return {
        "kind": "model",
        "architecture": emulator.architecture,
        "parameters": training.get("parameters"),
        **_labels(emulator.space),
        "wavelengths": {
            "low": domain.low, "high": domain.high, "medium": domain.medium, "sampling": domain.sampling,
            "resolution": domain.resolution, "pixels": len(emulator.native_wavelength),
        },
        "gives": list(emulator.channels) if domain.quantity == "flux" else [domain.quantity, *emulator.channels[1:]],
        "physics": list(domain.physics),
        "limits": [LIMITS.get(flag, flag) for flag in domain.physics],
        "grid": source.get("grid"),
        "source": _source(dict(source.get("provenance", {}))),
        "training": {
            "spectra": len(dict(training.get("split", {})).get("train", ())) or None,
            "steps": recipe.get("steps"), "optimizer": recipe.get("optimizer"), "seconds": training.get("seconds"),
            "hardware": training.get("hardware"),
        },
        "imported": dict(training.get("imported", {})),
        "distilled": dict(dict(training.get("distillation", {})).get("teacher", {})),
        "finetuned": dict(dict(training.get("finetuning", {})).get("base", {})),
        "validation": dict(model.validation),
        "fits_with_emulator_error": model.residuals is not None,
        "licence": training.get("licence") or dict(source.get("provenance", {})).get("licence"),
        "cite": _cite_model(model),
    }  # fmt: skip


def _cite_model(model: Model) -> list[str]:
    """Return whom to cite for a model: its network, its grid, and the same of the models it was fine-tuned from."""
    found: list[str | None] = [CITE.get(model.emulator.architecture)]
    found += _cite_source(dict(model.training.get("source", {})).get("provenance"))
    base = dict(dict(model.training.get("finetuning", {})).get("base", {}))
    while base:
        found.append(CITE.get(str(base.get("architecture"))))
        found += _cite_source(dict(base.get("source", {})).get("provenance"))
        base = dict(base.get("base", {}))
    return list(dict.fromkeys(c for c in found if c))


def describe_grid(grid: Grid) -> dict[str, Any]:
    """Return what a grid is: labels, spectra, wavelengths, where they come from; plain JSON data."""
    from starpayne.grid.store import DONE

    status, wavelength, split = grid.status, grid.wavelength, grid.split
    failed = len(grid.failures)
    return {
        "kind": "grid",
        **_labels(grid.space),
        "spectra": {
            "in_all": len(status), "done": int((status == DONE).sum()), "failed": failed,
            "missing": int((status != DONE).sum()) - failed,
            "train": len(split.train), "validation": len(split.validation), "test": len(split.test),
        },
        "wavelengths": {
            "low": float(wavelength[0]), "high": float(wavelength[-1]), "medium": grid.medium,
            "sampling": grid.sampling, "resolution": grid.resolution, "pixels": len(wavelength),
        },
        "gives": ["flux"] + ["continuum"] * grid.has_continuum + ["intensity"] * grid.has_intensity,
        "physics": list(grid.physics),
        "licence": grid.provenance.get("licence"),
        "cite": _cite_source(grid.provenance),
        "source": _source(grid.provenance),
    }  # fmt: skip


def as_text(facts: Mapping[str, Any]) -> str:
    """Return a description as lines of text."""
    wavelengths = facts["wavelengths"]
    lines = [
        (facts["kind"], _model_line(facts) if facts["kind"] == "model" else _grid_line(facts["spectra"])),
        ("wavelengths", f"{wavelengths['low']:.2f} to {wavelengths['high']:.2f} Å, {wavelengths['medium']}, "
         f"{wavelengths['pixels']} pixels"
         + (f", λ/Δλ {wavelengths['sampling']:,.0f}" if wavelengths["sampling"] else "")
         + (f", resolution {wavelengths['resolution']:,.0f}" if wavelengths["resolution"] else ", not broadened")),
        ("gives", ", ".join(facts["gives"])),
    ]  # fmt: skip
    lines += [("labels" if i == 0 else "", _label_line(label)) for i, label in enumerate(facts["labels"])]
    lines += [("held", ", ".join(f"{name} = {value:g}" for name, value in facts["held"].items()))]
    lines += [("constraints", "; ".join(facts["constraints"]))]
    lines += [("physics", ", ".join(facts["physics"]))]
    lines += [(name.replace("_", " "), _plain(value)) for name, value in facts["source"].items()]
    if facts["kind"] == "model":
        training, validation = facts["training"], facts["validation"]
        words = [
            f"{training['spectra']:,} spectra" if training["spectra"] else "",
            f"of {facts['grid']}" if facts["grid"] else "",
            f"{training['steps']:,} steps of {training['optimizer']}" if training["steps"] else "",
            f"{training['seconds']:,.0f} s on {training['hardware']}" if training["seconds"] else "",
        ]
        lines.append(("trained on", ", ".join(word for word in words if word)))
        for how in ("distilled", "finetuned"):
            if other := facts[how]:
                whom = f"from {other['name'] or 'a model'}, {other.get('architecture', 'unknown')}"
                lines.append((how.replace("finetuned", "fine-tuned"), f"{whom}, digest {other['digest']}"))
        if came := facts["imported"]:
            checksum = str(came.get("sha256"))[:16]
            lines.append(("imported", f"from {came.get('file')}, {came.get('format')}, SHA-256 {checksum}…"))
            gaps = "; ".join(" to ".join(map(str, gap)) for gap in came.get("gaps", ()))
            lines.append(("gaps", f"{gaps} Å: no pixels there, the flux is 1" if gaps else ""))
            lines.append(("error", "" if validation else "not known: it came without validation spectra"))
        if "mae" in validation:
            lines.append(
                ("error", f"mean absolute {validation['mae']:.5f} of the continuum, on {validation['n_spectra']} "
                 "validation spectra"
                 + ("; known by wavelength to fits" if facts["fits_with_emulator_error"] else ""))
            )  # fmt: skip
    lines.append(("licence", facts["licence"] or "not stated: ask its authors before you use or share it"))
    lines += [("cite" if i == 0 else "", paper) for i, paper in enumerate(facts["cite"])]
    return "\n".join(f"{name:<13}{text}" for name, text in lines if text)


def _cite_source(provenance: Any) -> list[str]:
    stated = dict(provenance or {})
    # Gaia-ESO's lines come with Turbospectrum: a code is cited where it made the spectra.
    codes = f"{stated.get('engine')} {stated.get('library')}".lower()
    lines = f"{stated.get('line_list')} {stated.get('lines')}".lower()
    return [paper for word, paper in CITE_SOURCE.items() if word.lower() in (lines if word == "Gaia-ESO" else codes)]


def _labels(space: LabelSpace) -> dict[str, Any]:
    return {
        "labels": [
            {"name": label.name, "low": label.low, "high": label.high, "unit": label.unit} for label in space.labels
        ],
        "held": {label.name: value for label, value in space.held},
        "constraints": [str(constraint) for constraint in space.constraints],
    }


def _source(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {name: provenance[name] for name in SOURCE if provenance.get(name)}


def _model_line(facts: Mapping[str, Any]) -> str:
    count = facts["parameters"]
    return facts["architecture"] + (f", {count:,} parameters" if count else "")


def _grid_line(spectra: Mapping[str, int]) -> str:
    return (
        f"{spectra['done']:,} of {spectra['in_all']:,} spectra, {spectra['failed']} failed, {spectra['missing']} "
        f"missing; {spectra['train']:,} to train on, {spectra['validation']:,} to validate, {spectra['test']:,} to test"
    )


def _label_line(label: Mapping[str, Any]) -> str:
    return f"{label['name']:<10}{label['low']:g} to {label['high']:g} {label['unit']}".rstrip()


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return str(value)
