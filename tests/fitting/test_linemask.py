"""Masks learned from a known star: where they hide pixels, what their zero points do, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from known_star import RESOLUTION, SPACE, TRUTH
from shell import run

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.errors import LabelError, SpectrumError
from starpayne.fitting import FitOptions, LineMask, fit, learn_mask
from starpayne.fitting.forward import bind
from starpayne.fitting.linedepths import LineDepths
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import doppler_factor

Observe = Callable[..., ObservedSpectrum]
REST = 5030.0
KNOWN = dict(zip(SPACE.names, TRUTH, strict=True))


def with_a_line(spectrum: ObservedSpectrum, rv: float, depth: float = 0.3) -> ObservedSpectrum:
    """A line at 5030 Å at rest that no model knows."""
    rest = spectrum.wavelength / doppler_factor(rv)
    return replace(spectrum, flux=spectrum.flux * (1 - depth * np.exp(-0.5 * ((rest - REST) / 0.15) ** 2)))


def with_wrong_lines(spectrum: ObservedSpectrum, rv: float) -> ObservedSpectrum:
    """Optical depths up to half as large again as the model has them, in waves of 9 Å at rest."""
    rest = spectrum.wavelength / doppler_factor(rv)
    x = np.linspace(-1, 1, len(rest))
    continuum = 700 * (1 + 0.2 * x - 0.1 * x**2)  # that of ``observe``
    normalised = np.clip(spectrum.flux / continuum, 0.01, None)
    return replace(spectrum, flux=continuum * normalised ** (1.25 + 0.25 * np.sin(2 * np.pi * rest / 9)))


@pytest.fixture(scope="module")
def mask(star_model: Model, observe: Observe) -> LineMask:
    star = with_a_line(observe(rv=20.0, snr=300), 20.0)
    return learn_mask(star, star_model, RESOLUTION, KNOWN, depths=False)


def test_the_line_that_no_model_knows_is_found_at_rest(mask: LineMask) -> None:
    assert any(low < REST < high for low, high in mask.windows)
    assert mask.source["fraction_masked"] < 0.1
    hidden = ~mask.keeps(np.linspace(REST - 0.2, REST + 0.2, 21), "air")
    assert hidden.mean() > 0.8
    assert mask.keeps(np.array([REST - 3, REST + 3]), "air").all()
    assert set(mask.free) == set(SPACE.names)


def test_masked_at_another_velocity_the_line_does_no_harm(star_model: Model, observe: Observe, mask: LineMask) -> None:
    spectrum = with_a_line(observe(rv=-60.0, snr=300, seed=3), -60.0)
    without = fit(spectrum, star_model, RESOLUTION)
    result = fit(spectrum, star_model, RESOLUTION, FitOptions(line_mask=mask.without_zero_points()))
    assert result.n_pixels < without.n_pixels
    assert result.reduced_chi2 < 1.3 < without.reduced_chi2
    rest = result.wavelength[~result.used & (abs(result.wavelength / doppler_factor(-60.0) - REST) < 0.1)]
    assert len(rest)


def test_zero_points_are_taken_off_and_reported(star_model: Model, observe: Observe, mask: LineMask) -> None:
    spectrum = observe(snr=300, seed=4)
    shifted = replace(mask, zero_points={"teff": 25.0})
    plain = fit(spectrum, star_model, RESOLUTION, FitOptions(line_mask=mask.without_zero_points()))
    result = fit(spectrum, star_model, RESOLUTION, FitOptions(line_mask=shifted))
    assert result.labels["teff"] == pytest.approx(plain.labels["teff"] - 25.0, abs=0.01)
    assert result.labels["feh"] == pytest.approx(plain.labels["feh"], abs=1e-6)
    assert result.zero_points == {"teff": 25.0}
    assert result.to_dict()["zero_points"] == {"teff": 25.0}
    other = fit(spectrum, star_model, RESOLUTION, FitOptions(line_mask=shifted, fix={"mg_fe": KNOWN["mg_fe"]}))
    assert "zero_points_of_other_labels" in other.flags


def test_lines_that_a_known_star_shows_to_be_too_weak_are_strengthened(star_model: Model, observe: Observe) -> None:
    def wrong(rv: float, seed: int, labels: np.ndarray) -> ObservedSpectrum:
        return with_wrong_lines(observe(labels, rv=rv, seed=seed, snr=300), rv)

    teacher = wrong(20.0, 0, TRUTH)
    mask = learn_mask(teacher, star_model, RESOLUTION, KNOWN)
    assert mask.source["misfit_after"] < 0.35 * mask.source["misfit_before"]
    other = TRUTH + np.array([150.0, -0.2, 0.1, 0.02, -0.05])
    star = wrong(-40.0, 5, other)
    uncorrected, corrected = (
        fit(star, star_model, RESOLUTION, FitOptions(line_mask=m)) for m in (mask.without_depths(), mask)
    )
    off = [abs(np.array(list(r.labels.values())) - other) / (SPACE.high - SPACE.low) for r in (uncorrected, corrected)]
    assert off[1].max() < 0.3 * off[0].max()
    assert corrected.reduced_chi2 < 0.2 * uncorrected.reduced_chi2


def test_factors_move_no_pixel_without_a_line(star_model: Model) -> None:
    bound, grid = bind(star_model.emulator, 5010.0, 5050.0, 50.0)
    depths = LineDepths((5000.0, 5030.0, 5060.0), (1.0, 2.0, 1.0), "air")
    corrected = depths.on(bound, grid, "air")
    plain, strong = (np.asarray(b(jnp.asarray(TRUTH, jnp.float32)), np.float64) for b in (bound, corrected))
    factor = np.interp(grid.wavelength, depths.wavelength, depths.factor)
    np.testing.assert_allclose(strong, plain**factor, atol=2e-6)
    assert depths.on(bound, grid, "vacuum").factor[100] != corrected.factor[100]
    np.testing.assert_allclose(corrected.batch(jnp.asarray(TRUTH[None], jnp.float32))[0, 0], strong, atol=2e-6)


@pytest.mark.parametrize(
    ("wavelength", "factor", "why"),
    [
        ((5000.0, 5001.0), (1.0,), "got 2 wavelengths and 1 factors"),
        ((5001.0, 5000.0), (1.0, 1.0), "must be finite and increase"),
        ((5000.0, 5001.0), (1.0, 0.0), "must be positive and finite"),
        ((5000.0, 5001.0), (1.0, float("nan")), "must be positive and finite"),
    ],
)
def test_line_depths_that_cannot_be(wavelength: tuple, factor: tuple, why: str) -> None:
    with pytest.raises(SpectrumError, match=why):
        LineDepths(wavelength, factor, "air")


@pytest.mark.parametrize("depths", [None, LineDepths((5000.0, 5001.0), (1.0, 1.2), "air")])
def test_a_mask_is_the_same_after_a_file(mask: LineMask, tmp_path: Path, depths: LineDepths | None) -> None:
    mask = replace(mask, depths=depths)
    mask.write(tmp_path / "m.json")
    assert LineMask.read(tmp_path / "m.json") == mask


def test_what_is_refused(star_model: Model, observe: Observe, mask: LineMask, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="labels of the reference star: unknown label 'tef'"):
        learn_mask(observe(), star_model, RESOLUTION, {"tef": 5772.0})
    with pytest.raises(SpectrumError, match="threshold = 3 is outside the range 0 to 1"):
        learn_mask(observe(), star_model, RESOLUTION, KNOWN, threshold=3.0)
    with pytest.raises(SpectrumError, match=r"% of the pixels are off by more than 0\.0001; check the labels"):
        learn_mask(observe(snr=20), star_model, RESOLUTION, KNOWN, threshold=1e-4)
    foreign = replace(mask, zero_points={"teff": 1.0}, model="another")
    with pytest.raises(SpectrumError, match="depths and zero points of the line mask were learned with another model"):
        fit(observe(), star_model, RESOLUTION, FitOptions(line_mask=foreign))
    for text, why in (
        ("{", "cannot be read as JSON"),
        ("{}", "is no line mask: give what starpayne mask learn wrote as --out"),
        ('{"format": "x"}', "has the format"),
        ('{"format": "starpayne line mask 2", "windows": 3}', "is a damaged line mask: TypeError"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(SpectrumError, match=why):
            LineMask.read(tmp_path / "bad.json")


def test_the_commands_learn_and_use_a_mask(star_model: Model, observe: Observe, tmp_path: Path) -> None:
    folder = bundle.save(star_model, tmp_path / "star.model")
    spectrum = with_a_line(observe(snr=300), 0.0)
    columns = np.stack([spectrum.wavelength, spectrum.flux, spectrum.error])[:, spectrum.mask]
    np.savetxt(tmp_path / "star.txt", columns.T, header="wavelength flux error", comments="")
    words = ("--model", folder, "--resolution", RESOLUTION, "--medium", "air")
    known = ",".join(f"{name}={value}" for name, value in KNOWN.items() if name != "mg_fe")
    text = run(
        "mask", "learn", "--spectrum", tmp_path / "star.txt", *words, "--labels", f"{known},solar-scaled",
        "--fix", f"mg_fe={KNOWN['mg_fe']}", "--out", tmp_path / "m.json",
    )  # fmt: skip
    assert "windows hide" in text
    assert "zero point of teff" in text
    assert "line depths: misfit" in text
    out = tmp_path / "t.parquet"
    run(
        "fit", tmp_path / "star.txt", *words, "--line-mask", tmp_path / "m.json", "--fix", f"mg_fe={KNOWN['mg_fe']}",
        "--bounds", "teff=5000:6500", "--prior", "logg=4.3:0.5", "--out", out, "--json", tmp_path / "t.json",
    )  # fmt: skip
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(out).to_pydict()
    (row,) = json.loads((tmp_path / "t.json").read_text())
    assert table["teff"] == [row["labels"]["teff"]["value"]]
    assert table["teff_raw_error"] == [row["labels"]["teff"]["raw_error"]]
    assert set(row["zero_points"]) == set(SPACE.names) - {"mg_fe"}
