"""The model card says what the model knows of itself, and nothing in it can be taken for a command."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import toy
from huggingface_hub import ModelCard
from matplotlib.image import imread

from starpayne import bundle
from starpayne.bundle import Model, Verification
from starpayne.errors import SharingError
from starpayne.sharing.card import Publication, model_card
from starpayne.sharing.figure import error_figure


@pytest.fixture(scope="module")
def found(payne_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Verification:
    return bundle.verify(bundle.save(payne_model, tmp_path_factory.mktemp("card") / "m"))


def test_the_card_says_what_the_model_is(payne_model: Model, found: Verification) -> None:
    card = model_card(payne_model, found, Publication("ada/sun", "CC-BY-4.0", ("Ada Lovelace", "C. Payne")), True)
    for label in toy.SPACE.labels:
        assert f"| `{label.name}` | {label.low:g} | {label.high:g} | {label.unit} |" in card
    domain, validation = payne_model.emulator.domain, payne_model.validation
    assert f"| wavelengths | {domain.low:.2f} to {domain.high:.2f} Å, 40 pixels, λ/Δλ = 20,000 |" in card
    for words in (
        "# sun\n",
        "| predicts | the normalised flux |",
        "| medium | air |",
        "| resolution | not broadened by an instrument |",
        f"payne, {payne_model.training['parameters']:,} parameters",
        "Constraints: `-0.4 <= mg_fe - alpha_fe <= 0.4`.",
        "- no molecular lines: predictions below 5000 K are flagged",
        "- plane-parallel atmospheres: predictions below log g 1.5 are flagged",
        "| grid | toy |",
        "| training spectra | 40 |",
        "| training | 180 steps of adamw |",
        f"On 10 spectra that it was not trained on: mean absolute error {validation['mae']:.5f} of the continuum",
        "![Error by wavelength](errors.png)",
        "## Licence\n\nCC-BY-4.0\n",
        "- Ada Lovelace, C. Payne: ada/sun, with the commit that was used\n",
        "- Ting et al. 2019, ApJ 879, 69 (The Payne)",
        f"| SHA-256 of weights.safetensors | `{found.sha256}` |",
        f"| digest of what it predicts | `{bundle.digest(payne_model.emulator)}` |",
    ):
        assert words in card


def test_the_head_is_read_as_it_is_meant(payne_model: Model, found: Verification) -> None:
    def head(licence: str | None) -> dict:
        return ModelCard(model_card(payne_model, found, Publication("ada/sun", licence), True)).data.to_dict()

    data = head("MIT")
    assert data["license"] == "mit"
    assert data["library_name"] == "starpayne"
    assert {"starpayne", "astronomy", "stellar-spectra", "payne"} <= set(data["tags"])
    assert head("GPL-3.0-or-later")["license"] == "gpl-3.0"
    assert head("CECILL-2.1") | {"tags": []} == {
        "license": "other", "license_name": "CECILL-2.1", "library_name": "starpayne", "tags": [],
    }  # fmt: skip
    assert head(None)["license"] == "unknown"
    assert "Not stated: ask the authors" in model_card(payne_model, found, Publication("ada/sun"), True)


def test_what_others_wrote_stays_text(payne_model: Model, found: Verification) -> None:
    source = {"grid": "toy", "provenance": {"engine": "PySME | 1\n# Owned <script>alert(1)</script> [x](y)"}}
    model = replace(payne_model, training={**payne_model.training, "source": source})
    card = model_card(model, found, Publication("ada/sun", "MIT", ("A\n---\nlicense: evil",)), False)
    assert r"| engine | PySME \| 1 \# Owned \<script\>alert(1)\</script\> \[x\](y) |" in card
    assert "- A --- license: evil: ada/sun" in card
    assert "errors.png" not in card
    for licence in ("MIT\nx: y", "", "my own"):
        with pytest.raises(SharingError, match=r"is no SPDX identifier, such as MIT or CC-BY-4.0"):
            Publication("ada/sun", licence)
    with pytest.raises(SharingError, match="--author '' names nobody"):
        Publication("ada/sun", "MIT", (" ",))


def test_a_model_without_validation_says_so(payne_model: Model, found: Verification) -> None:
    bare = Model(payne_model.emulator)
    card = model_card(bare, found, Publication("ada/sun", "MIT"), False)
    assert "Not stated: the model has no validation spectra." in card
    assert "| training spectra | not stated |" in card
    assert error_figure(bare) is None


def test_the_figure_shows_the_stored_covariance(payne_model: Model) -> None:
    residuals = payne_model.residuals
    assert residuals is not None
    covariance = residuals.modes.T @ residuals.modes + np.diag(residuals.noise**2)
    np.testing.assert_allclose(residuals.sigma, np.sqrt(np.diag(covariance)), rtol=1e-5)
    first, again = error_figure(payne_model), error_figure(payne_model)
    assert first is not None
    assert first == again
    assert imread(BytesIO(first)).shape == (450, 1200, 4)
    larger = replace(payne_model, residuals=replace(residuals, noise=3 * residuals.noise))
    assert error_figure(larger) != first
