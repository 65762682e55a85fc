"""The model card: what ``starpayne info`` knows of a model, as a README.md with a head that a hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from starpayne.bundle import Model, Verification
from starpayne.description import describe_model
from starpayne.errors import SharingError, one_line

FIGURE = "errors.png"
UNKNOWN = "unknown"

# What a hub has a name of its own for; it is the SPDX identifier in small letters, without what versions may follow.
KNOWN = (
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-3.0 cc-by-4.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-4.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 ecl-2.0 "
    "epl-1.0 epl-2.0 eupl-1.1 gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa ofl-1.1 osl-3.0 unlicense "
    "wtfpl zlib"
)


@dataclass(frozen=True)
class Publication:
    """What the files of a model cannot say of its publication.

    Args:
        repo: ``OWNER/NAME``.
        licence: SPDX identifier, such as MIT or CC-BY-4.0; None if it is not stated.
        authors: whom to name, in order.

    Raises:
        SharingError: for what is no SPDX identifier, or an author without a name.
    """

    repo: str
    licence: str | None = None
    authors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.licence is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{1,63}", self.licence):
            raise SharingError(f"--licence {self.licence!r} is no SPDX identifier, such as MIT or CC-BY-4.0")
        if not all(author.strip() for author in self.authors):
            raise SharingError("--author '' names nobody; leave it out, or give a name")


def model_card(model: Model, found: Verification, publication: Publication, figure: bool) -> str:
    """Return the README.md of a model.

    Args:
        model: the model.
        found: its checksums and digest.
        publication: where it goes, under which licence, by whom.
        figure: whether the error figure lies beside it.
    """
    facts = describe_model(model)
    if publication.licence is None and facts["licence"]:
        publication = replace(publication, licence=str(facts["licence"]))
    space = model.emulator.space
    star = dict(zip(space.names, map(float, space.from_cube(np.full(len(space), 0.5))), strict=True))
    parts = [
        _head(facts, publication), _summary(facts, publication), _labels(facts), _physics(facts), _origin(facts),
        _errors(facts, figure), _use(facts, publication, star), _rights(facts, publication), _identity(found),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _head(facts: Mapping[str, Any], publication: Publication) -> str:
    licence = publication.licence
    short = re.sub(r"-(only|or-later)$", "", licence.lower()) if licence else UNKNOWN
    lines = [f"license: {short}"]
    if licence and short not in KNOWN.split():
        lines = ["license: other", f"license_name: {json.dumps(licence)}"]
    tags = ["starpayne", "astronomy", "stellar-spectra", "emulator", "jax", str(facts["architecture"])]
    return "\n".join(["---", *lines, "library_name: starpayne", "tags:", *(f"- {json.dumps(t)}" for t in tags), "---"])


def _summary(facts: Mapping[str, Any], publication: Publication) -> str:
    waves, count = facts["wavelengths"], facts["parameters"]
    channels = {"flux": "the normalised flux", "intensity": "the normalised intensity π I(μ, λ) / F_c(λ)",
                "log10_continuum": "log10 of the continuum flux (erg s⁻¹ cm⁻² Å⁻¹)"}  # fmt: skip
    resolution = waves["resolution"]
    sampling = f", λ/Δλ = {waves['sampling']:,.0f}" if waves["sampling"] else ""
    rows = {
        "predicts": ", and ".join(channels.get(name, str(name)) for name in map(str, facts["gives"])),
        "wavelengths": f"{waves['low']:.2f} to {waves['high']:.2f} Å, {waves['pixels']:,} pixels{sampling}",
        "medium": waves["medium"],
        "resolution": f"{resolution:,.0f} (λ/FWHM)" if resolution else "not broadened by an instrument",
        "architecture": facts["architecture"] + (f", {count:,} parameters" if count else ""),
    }
    return (
        f"# {publication.repo.split('/')[1]}\n\nAn emulator of stellar spectra: from stellar labels to a "
        f"spectrum and its derivatives, for [`starpayne`](#how-to-use).\n\n{_table(('', ''), rows.items())}"
    )


def _labels(facts: Mapping[str, Any]) -> str:
    rows = [
        (f"`{label['name']}`", f"{label['low']:g}", f"{label['high']:g}", _plain(label["unit"]))
        for label in facts["labels"]
    ]
    text = "## Labels\n\n" + _table(("label", "from", "to", "unit"), rows)
    for title, said in (
        ("Constraints", [f"`{words}`" for words in facts["constraints"]]),
        ("Held", [f"`{name} = {value:g}`" for name, value in facts["held"].items()]),
    ):
        text += f"\n\n{title}: {', '.join(said)}." if said else ""
    return text + "\n\nOutside these ranges a prediction is refused, or flagged where extrapolation was asked for."


def _physics(facts: Mapping[str, Any]) -> str:
    limits = [f"- {_plain(text)}" for text in facts["limits"]]
    return "## Physics, and its limits\n\n" + ("\n".join(limits) if limits else "The grid does not say what it lacks.")


def _origin(facts: Mapping[str, Any]) -> str:
    training = facts["training"]
    rows: dict[str, str] = {"grid": _plain(facts["grid"])} if facts["grid"] else {}
    rows |= {name.replace("_", " "): _plain(value) for name, value in facts["source"].items()}
    rows["training spectra"] = f"{training['spectra']:,}" if training["spectra"] else "not stated"
    if training["steps"]:
        rows["training"] = f"{training['steps']:,} steps of {_plain(training['optimizer'])}"
    if training["seconds"]:
        rows["time"] = f"{training['seconds']:,.0f} s on {_plain(training['hardware'])}"
    return "## Where it comes from\n\n" + _table(("", ""), rows.items())


def _errors(facts: Mapping[str, Any], figure: bool) -> str:
    validation, text = facts["validation"], "## How far it is off"
    if "mae" in validation:
        text += (
            f"\n\nOn {validation['n_spectra']} spectra that it was not trained on: mean absolute error "
            f"{validation['mae']:.5f} of the continuum, root mean square {validation['rmse']:.5f}. This is its "
            "distance from the code that made the grid, not from real stars."
        )
    else:
        text += "\n\nNot stated: the model has no validation spectra."
    if figure:
        text += (
            f"\n\n![Error by wavelength]({FIGURE})\n\n*The size of the residuals (1 σ) by wavelength, from the "
            "covariance that is stored with the model; fits add it to the noise.*"
        )
    return text


def _use(facts: Mapping[str, Any], publication: Publication, star: Mapping[str, float]) -> str:
    repo, waves = publication.repo, facts["wavelengths"]
    words = " ".join(f"--{name} {round(value, 3) + 0.0:g}" for name, value in star.items())
    lines = [
        'pip install "starpayne[hub]"',
        f"starpayne pull {repo} --out {repo.split('/')[1]}.model",
        f"starpayne predict --model hf://{repo} {words} --out star.csv",
    ]
    if "flux" in facts["gives"]:
        lines.append(f"starpayne fit star.fits --model hf://{repo} --resolution 47000 --out star.ecsv")
    return (
        "## How to use\n\n```sh\n" + "\n".join(lines) + "\n```\n\n"
        f"Wavelengths are in {waves['medium']}. `pull` prints the commit: `hf://{repo}@COMMIT` is this very model for "
        f'all time, and should stand in a paper. In Python: `starpayne.load("hf://{repo}")`.'
    )


def _rights(facts: Mapping[str, Any], publication: Publication) -> str:
    licence, authors = publication.licence, [_plain(author) for author in publication.authors]
    rights = _plain(licence) if licence else "Not stated: ask the authors before you use the model."
    model = f"{', '.join(authors) + ': ' if authors else ''}{publication.repo}, with the commit that was used"
    cite = [model, *(_plain(paper) for paper in facts["cite"])]
    return f"## Licence\n\n{rights}\n\n## How to cite\n\n" + "\n".join(f"- {line}" for line in cite)


def _identity(found: Verification) -> str:
    rows = {
        f"SHA-256 of {found.weights}": f"`{found.sha256}`", "digest of what it predicts": f"`{found.digest}`",
        "made with": _plain(f"starpayne {found.starpayne}, {found.made_on}"),
    }  # fmt: skip
    return "## Identity\n\n" + _table(("", ""), rows.items()) + "\n\n`starpayne verify` recomputes both."


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _plain(value: Any) -> str:
    """Return what others have written on one line, with nothing in it that Markdown or HTML would obey."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_plain(name)} {_plain(item)}" for name, item in value.items())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one_line(str(value)).strip())
