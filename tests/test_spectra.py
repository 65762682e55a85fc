"""Observed spectra: what is checked, what is read, what is assumed and said."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from starpayne.errors import SpectrumError, WavelengthError
from starpayne.spectra import ObservedSpectrum, guess_unit

WAVELENGTH = np.linspace(5000.0, 5010.0, 50)
FLUX = 1 - 0.3 * np.exp(-((WAVELENGTH - 5005) ** 2))
ERROR = np.full(50, 0.01)


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"flux": FLUX[:-1]}, SpectrumError, r"flux has shape \(49,\), wavelength has \(50,\)"),
        ({"error": ERROR[:3]}, SpectrumError, r"error has shape \(3,\), wavelength has \(50,\)"),
        ({"mask": np.ones(4, bool)}, SpectrumError, r"mask has shape \(4,\)"),
        ({"error": np.where(np.arange(50) == 7, -0.5, 0.01)}, SpectrumError,
         r"error\[7\] = -0.5 at 5001.429 Å: errors must be positive; mask"),
        ({"error": np.where(np.arange(50) == 9, 0.0, 0.01)}, SpectrumError, r"error\[9\] = 0 at"),
        ({"flux": np.full(50, np.nan)}, SpectrumError, r"all 50 pixels are masked \(50 because they are NaN\)"),
        ({"mask": np.zeros(50, bool)}, SpectrumError, r"all 50 pixels are masked \(0 because they are NaN\)"),
        ({"wavelength": WAVELENGTH[::-1]}, WavelengthError, r"wavelengths must increase: wavelength\[0\]"),
        ({"wavelength": np.where(np.arange(50) == 3, np.nan, WAVELENGTH)}, WavelengthError,
         r"wavelength\[3\] = nan is not a finite number"),
        ({"medium": "water"}, WavelengthError, "medium 'water' is not known; say 'air' or 'vacuum'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_place(changes: dict, kind: type[Exception], text: str) -> None:
    given = {"wavelength": WAVELENGTH, "flux": FLUX, "error": ERROR, **changes}
    with pytest.raises(kind, match=text):
        ObservedSpectrum(**given)


def test_nan_pixels_are_masked_and_counted_and_the_callers_arrays_stay() -> None:
    flux, error, mask = FLUX.copy(), ERROR.copy(), np.ones(50, bool)
    flux[3], error[4], error[5] = np.nan, np.nan, np.inf
    spectrum = ObservedSpectrum(WAVELENGTH, flux, error, mask)
    assert spectrum.n_nan == 3
    assert not spectrum.used[[3, 4, 5]].any()
    assert spectrum.used.sum() == 47
    assert mask.all()
    assert spectrum.select(np.arange(10)).used.sum() == 7


def test_an_error_that_is_masked_may_be_anything() -> None:
    mask = np.arange(50) != 7
    assert ObservedSpectrum(WAVELENGTH, FLUX, np.where(mask, 0.01, -1.0), mask).used.sum() == 49


def test_between_prints_both_ranges() -> None:
    spectrum = ObservedSpectrum(WAVELENGTH, FLUX, ERROR)
    assert len(spectrum.between(5002, 5004)) < 20
    with pytest.raises(
        SpectrumError, match=r"no pixel between 6000 and 6100 Å: the spectrum runs from 5000.00 to 5010.00"
    ):
        spectrum.between(6000, 6100)


@pytest.mark.parametrize("style", ["plain", "named", "csv", "tab", "gz", "comments", "ecsv"])
def test_text_tables_of_many_kinds(tmp_path: Path, style: str) -> None:
    path = tmp_path / {"csv": "star.csv", "gz": "star.txt.gz", "ecsv": "star.ecsv"}.get(style, "star.txt")
    separator = {"csv": ",", "tab": "\t"}.get(style, "  ")
    rows = [separator.join(f"{v:.8f}" for v in row) for row in zip(WAVELENGTH, FLUX, ERROR, strict=True)]
    head = {"plain": [], "comments": ["# a star", "! of mine"]}.get(
        style, [separator.join(("Wavelength", "Flux", "Err"))]
    )
    if style == "ecsv":
        Table({"wave": WAVELENGTH, "flux": FLUX, "sigma": ERROR}).write(path)
    elif style == "gz":
        path.write_bytes(gzip.compress("\n".join(head + rows).encode()))
    else:
        path.write_text("\n".join(head + rows) + "\n")
    spectrum = ObservedSpectrum.read(path)
    np.testing.assert_allclose(spectrum.wavelength, WAVELENGTH, atol=1e-6)
    np.testing.assert_allclose(spectrum.flux, FLUX, atol=1e-6)
    assert spectrum.error is not None
    np.testing.assert_allclose(spectrum.error, ERROR, atol=1e-6)
    assert spectrum.notes == ("unit_assumed:angstrom",)
    assert spectrum.name == path.name


def test_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "star.txt"
    ivar = np.where(np.arange(50) == 5, 0.0, 1e4)
    np.savetxt(path, np.transpose([FLUX, ivar, WAVELENGTH / 10]), header="flux ivar wave_air_nm", comments="")
    spectrum = ObservedSpectrum.read(path)
    np.testing.assert_allclose(spectrum.wavelength, WAVELENGTH)
    assert (spectrum.medium, spectrum.notes) == ("air", ())
    assert not spectrum.used[5]
    assert spectrum.snr == pytest.approx(100, rel=0.1)


def test_two_columns_have_no_error(tmp_path: Path) -> None:
    path = tmp_path / "star.txt"
    np.savetxt(path, np.transpose([WAVELENGTH, FLUX]))
    spectrum = ObservedSpectrum.read(path, unit="angstrom", medium="vacuum")
    assert (spectrum.error, spectrum.snr, spectrum.medium, spectrum.notes) == (None, None, "vacuum", ())


def test_decreasing_wavelengths_in_a_file_are_turned_round(tmp_path: Path) -> None:
    path = tmp_path / "star.txt"
    np.savetxt(path, np.transpose([WAVELENGTH, FLUX])[::-1])
    np.testing.assert_allclose(ObservedSpectrum.read(path).flux, FLUX)


def test_units_are_never_guessed_in_silence() -> None:
    assert guess_unit(np.array([480.0, 680.0])) == "nm"
    assert guess_unit(np.array([4800.0, 6800.0])) == "angstrom"
    assert guess_unit(np.array([0.48, 2.4])) == "micron"
    assert guess_unit(np.array([4.8e-7, 2.4e-6])) == "m"
    with pytest.raises(
        SpectrumError, match="star: wavelengths run from 1500 to 2500 and their unit is not stated: give"
    ):
        guess_unit(np.array([1500.0, 2500.0]), "star")


@pytest.mark.parametrize(
    ("header", "unit", "medium"),
    [
        ({"CRVAL1": 5000.0, "CDELT1": 0.2, "CTYPE1": "AWAV", "CUNIT1": "Angstrom"}, (), "air"),
        ({"CRVAL1": 500.0, "CDELT1": 0.02, "CTYPE1": "WAVE", "CUNIT1": "nm"}, (), "vacuum"),
        ({"CRVAL1": np.log10(5000.0), "CD1_1": 2e-5, "DC-FLAG": 1}, (), None),
        ({"CRVAL1": 5000.6, "CDELT1": 0.2, "CRPIX1": 4.0}, ("unit_assumed:angstrom",), None),
    ],
)
def test_fits_images(tmp_path: Path, header: dict, unit: tuple[str, ...], medium: str | None) -> None:
    path = tmp_path / "star.fits"
    hdu = fits.PrimaryHDU(FLUX.astype(np.float32))
    hdu.header.update(header)
    hdu.writeto(path)
    spectrum = ObservedSpectrum.read(path)
    assert spectrum.wavelength[0] == pytest.approx(5000.0)
    assert spectrum.wavelength[1] > 5000.1
    assert (spectrum.notes, spectrum.medium, spectrum.error) == (unit, medium, None)


def test_fits_tables(tmp_path: Path) -> None:
    path = tmp_path / "star.fits"
    table = Table({"LOGLAM": np.log10(WAVELENGTH), "FLUX": FLUX, "IVAR": np.full(50, 1e4)})
    table.write(path)
    spectrum = ObservedSpectrum.read(path)
    np.testing.assert_allclose(spectrum.wavelength, WAVELENGTH)
    assert spectrum.error is not None
    np.testing.assert_allclose(spectrum.error, 0.01)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("b.txt", b"a poem\nabout a star\n", "b.txt is not a table of wavelength, flux and error|b.txt: no column"),
        ("c.txt", b"5000.0\n5001.0\n", r"c.txt holds 1 column\(s\) of 2 row\(s\)"),
        ("d.txt", b"colour size\n1 2\n3 4\n", r"d.txt: no column of colour, size is recognised as wavelength"),
        ("e.fits", b"SIMPLE  = but no more", "e.fits"),
        ("f.txt", b"\xff\xfe\x00\x81\x82 \n", "f.txt is neither text nor FITS"),
        ("g.txt", b"5000 1 0\n5001 1 0\n", "g.txt: no error is positive"),
    ],
)
def test_files_that_hold_no_spectrum(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpectrumError, match=text):
        ObservedSpectrum.read(tmp_path / name)


def test_missing_files_and_unknown_units(tmp_path: Path) -> None:
    with pytest.raises(SpectrumError, match="no file at"):
        ObservedSpectrum.read(tmp_path / "nothing.fits")
    with pytest.raises(SpectrumError, match="unit 'inch' is not known; choose one of angstrom, nm, micron, m"):
        ObservedSpectrum.read(tmp_path / "nothing.fits", unit="inch")


def test_an_image_without_wavelengths_is_no_spectrum(tmp_path: Path) -> None:
    path = tmp_path / "picture.fits"
    fits.PrimaryHDU(np.zeros((20, 20))).writeto(path)
    with pytest.raises(SpectrumError, match=r"picture.fits"):
        ObservedSpectrum.read(path)


def test_a_specutils_spectrum() -> None:
    u = pytest.importorskip("astropy.units")
    from astropy.nddata import InverseVariance

    given = SimpleNamespace(
        spectral_axis=(WAVELENGTH[::-1] / 10) * u.nm, flux=FLUX[::-1] * u.Unit("erg / (s cm2 AA)"),
        uncertainty=InverseVariance(np.full(50, 1e4)), mask=np.arange(50) < 2,
    )  # fmt: skip
    spectrum = ObservedSpectrum.from_specutils(given, medium="air", name="mine")
    np.testing.assert_allclose(spectrum.wavelength, WAVELENGTH)
    np.testing.assert_allclose(spectrum.flux, FLUX)
    assert spectrum.error is not None
    np.testing.assert_allclose(spectrum.error, 0.01)
    assert spectrum.used.sum() == 48
    assert not spectrum.used[-2:].any()
    with pytest.raises(SpectrumError, match="str cannot be read as a spectrum"):
        ObservedSpectrum.from_specutils("star.fits")


def test_the_solar_atlas(data_folder: Path) -> None:
    sun = ObservedSpectrum.read(data_folder / "sun_atlas" / "ATLAS.Sun_47000.txt.gz", medium="air")
    assert (sun.wavelength[0], sun.medium, sun.notes) == (pytest.approx(4800.0), "air", ("unit_assumed:nm",))
    assert len(sun) == 200_000
    assert sun.snr == pytest.approx(581, abs=1)


@pytest.mark.parametrize(
    ("name", "low", "medium"), [("Sun_HARPS.fits", 3783.14, None), ("HARPS.GBOG_Procyon.fits", 4800.0, "air")]
)
def test_harps_spectra(data_folder: Path, name: str, low: float, medium: str | None) -> None:
    star = ObservedSpectrum.read(data_folder / "real_stars" / name)
    assert star.wavelength[0] == pytest.approx(low, abs=0.01)
    assert (star.medium, star.notes, star.error) == (medium, (), None)
