"""A design file says everything that determines a grid, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from starpayne.errors import GridError, LabelError, StarpayneError, SynthesisError
from starpayne.synthesis import Design, shipped_designs

TEXT = """
n_spectra = 20
seed = 3
constraints = ["-0.4 <= mg_fe - feh <= 0.4"]
[labels]
teff = {low = 5000, high = 6000, transform = "inverse"}
logg = {low = 3, high = 5}
feh = {low = -1, high = 0}
mg_fe = {low = -1.4, high = 0.4}
[wavelength]
low = 5160
high = 5165
medium = "vacuum"
sampling = 50_000
[engine.settings]
accrt = 1e-3
[split]
n_test = 3
n_validation = 2
"""


def _read(tmp_path: Path, text: str) -> Design:
    path = tmp_path / "design.toml"
    path.write_text(text)
    return Design.from_toml(path)


def test_a_file_becomes_labels_wavelengths_and_a_split(tmp_path: Path) -> None:
    design = _read(tmp_path, TEXT)
    assert design.labels.shape == (20, 4)
    design.space.check(design.labels)
    assert design.space["teff"].unit == "K"
    assert design.wavelength[0] == 5160
    np.testing.assert_allclose(np.diff(np.log(design.wavelength)), 1 / 50_000, rtol=1e-6)
    assert design.split.test == (17, 18, 19)
    assert design.split.validation == (15, 16)
    assert design.split.train == tuple(range(15))
    assert Design.from_dict(design.to_dict()) == design


def test_a_larger_design_begins_with_the_smaller_one(tmp_path: Path) -> None:
    design = _read(tmp_path, TEXT)
    larger = dataclasses.replace(design, n_spectra=50)
    np.testing.assert_array_equal(larger.labels[:20], design.labels)


def test_lines_are_selected_at_the_metal_rich_corners_of_the_label_box(tmp_path: Path) -> None:
    settings = _read(tmp_path, TEXT).engine_settings()
    assert settings["window"] == pytest.approx([5160, 5165], abs=0.1)
    assert (settings["medium"], settings["accrt"]) == ("vacuum", 1e-3)
    corners = settings["corners"]
    assert {(c["teff"], c["logg"]) for c in corners} == {(t, g) for t in (5000, 5500, 6000) for g in (3, 5)}
    assert all(c["feh"] == 0 and c["mg_fe"] == 0.4 for c in corners)


def test_given_line_corners_are_taken(tmp_path: Path) -> None:
    design = _read(tmp_path, "line_corners = [{teff = 5500, logg = 4}]\n" + TEXT)
    assert design.engine_settings()["corners"] == [{"teff": 5500, "logg": 4}]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed", "sed", "unknown key 'sed' in the top level; allowed: name, n_spectra, rows, seed, constraints"),
        ("sampling", "resolution", r"unknown key 'resolution' in \[wavelength\]; allowed: low, high, medium, sampling"),
        ("transform", "scale", r"unknown key 'scale' in \[labels.teff\]; allowed: low, high, transform"),
        ("n_test", "test", r"unknown key 'test' in \[split\]; allowed: n_test, n_validation"),
        ("n_spectra = 20", "", "the key 'n_spectra' is missing"),
        ("n_spectra = 20", "n_spectra = 2.5", "2.5 is not a whole number"),
        ("n_spectra = 20", "n_spectra = 0", "n_spectra = 0: a grid needs at least one spectrum"),
        ("n_spectra = 20", "n_spectra = 5", "leaves none of 5 to train on"),
        ("high = 5165", "high = 5000", "need 0 < low < high and sampling > 1, got 5160, 5000"),
        ('"vacuum"', '"ether"', "medium 'ether' is not known"),
        ("low = 5000, high = 6000", "low = 6000, high = 5000", "label teff: bounds must be finite and increasing"),
        ("low = 5000", 'low = "cool"', "could not convert string to float: 'cool'"),
        ("mg_fe - feh", "mg_fe - fe_h", "unknown label 'fe_h'"),
        ("accrt", "window", "engine setting 'window' follows from the design"),
        (
            "[engine.settings]",
            '[engine]\nname = "moog"\n[engine.settings]',
            "unknown synthesis engine 'moog'; registered",
        ),
        ("[labels]", "[labels", "is not TOML"),
    ],
)
def test_a_wrong_design_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(StarpayneError, match=message):
        _read(tmp_path, TEXT.replace(old, new, 1))


def test_errors_are_of_the_room_they_come_from(tmp_path: Path) -> None:
    for old, new, kind in (("n_test = 3", "n_test = 20", GridError), ("feh = {low = -1", "feh = {low = 1", LabelError)):
        with pytest.raises(kind):
            _read(tmp_path, TEXT.replace(old, new))
    with pytest.raises(SynthesisError, match="cannot be read"):
        Design.from_toml(tmp_path / "nowhere.toml")


def test_the_demo_design_is_as_large_as_promised() -> None:
    demo = Design.shipped("demo")
    assert demo.n_spectra >= 300
    assert len(demo.space) >= 5
    assert demo.space["teff"].high - demo.space["teff"].low >= 1000
    assert demo.high - demo.low >= 20


def test_shipped_designs_are_listed_and_readable() -> None:
    assert shipped_designs() == ["demo", "intensities", "mgb_fixed", "mgb_reference", "mgb_turbospectrum"]
    for name in shipped_designs():
        assert Design.shipped(name).name == name
    with pytest.raises(SynthesisError, match="no shipped design 'apogee'; there are: demo, intensities, mgb_fixed"):
        Design.shipped("apogee")


def test_the_design_of_intensities_stores_the_very_angles_of_its_flux() -> None:
    design = Design.shipped("intensities")
    n = design.settings["n_mu"]
    np.testing.assert_allclose(design.settings["mu"], np.sqrt((np.arange(n) + 0.5) / n), atol=1e-9)
    assert not design.undersampled


def test_the_mgb_reference_design_has_the_stars_of_the_shared_grid(mgb) -> None:
    design = Design.shipped("mgb_reference")
    np.testing.assert_allclose(design.labels, mgb.labels, atol=1e-12)
    np.testing.assert_allclose(design.wavelength, mgb.wavelength, atol=1e-6)


def test_a_sampling_too_coarse_for_the_narrowest_lines_is_flagged() -> None:
    demo = Design.shipped("demo")
    assert not demo.undersampled
    assert demo.sampling_needed == pytest.approx(159_000, rel=0.01)
    coarse = dataclasses.replace(demo, sampling=100_000.0)
    assert coarse.undersampled
    assert coarse.provenance({"physics": ["lte"]})["physics"] == ["lte", "undersampled"]
    assert demo.provenance({"physics": ["lte"]})["physics"] == ["lte"]
