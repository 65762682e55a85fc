"""Files with many spectra, as surveys publish them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from astropy.io import fits
from astropy.table import Table

from starpayne.errors import SpectrumError
from starpayne.spectra import ObservedSpectrum
from starpayne.spectrum_tables import open_spectra

N, PIXELS = 5, 40
WAVELENGTH = np.linspace(5000.0, 5010.0, PIXELS)
FLUX = 1 + np.arange(N)[:, None] + 0.01 * np.sin(WAVELENGTH)
IVAR = np.full((N, PIXELS), 1e4)
IVAR[2, 7] = 0


def columns(path: Path) -> Path:
    table = Table({"WAVE": np.tile(WAVELENGTH / 10, (N, 1)), "FLUX": FLUX, "IVAR": IVAR, "NAME": list("abcde")})
    table["WAVE"].unit = "nm"
    table.write(path)
    return path


def images(path: Path, wavelength: np.ndarray | None = WAVELENGTH, ids: bool = True) -> Path:
    flux = fits.ImageHDU(FLUX, name="FLUX")
    flux.header["VACUUM"] = True
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(IVAR, name="IVAR"), flux]
    if wavelength is None:
        flux.header.update({"CRVAL1": np.log10(5000.0), "CD1_1": 1e-5, "DC-FLAG": 1})
    else:
        hdus.append(fits.ImageHDU(wavelength, name="WAVELENGTH"))
    if ids:
        hdus.append(fits.table_to_hdu(Table({"RA": np.zeros(N), "TARGETID": 10 * np.arange(N)})))
    fits.HDUList(hdus).writeto(path)
    return path


def parquet(path: Path, row_group: int = 2, **more: object) -> Path:
    table = {"wavelength": [WAVELENGTH] * N, "flux": list(FLUX), "ivar": list(IVAR), "gaia_id": range(N), **more}
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=row_group)
    return path


@pytest.mark.parametrize(
    ("make", "names", "medium"),
    [
        (lambda p: columns(p / "t.fits"), list("abcde"), None),
        (lambda p: images(p / "t.fits"), ["0", "10", "20", "30", "40"], "vacuum"),
        (lambda p: images(p / "t.fits", np.tile(WAVELENGTH, (N, 1)), ids=False), [f"t.fits#{i}" for i in range(N)],
         "vacuum"),
        (lambda p: parquet(p / "t.parquet"), list("01234"), None),
    ],
    ids=["fits columns", "fits images", "fits images, wavelengths each", "parquet"],
)  # fmt: skip
def test_each_row_is_a_spectrum(tmp_path: Path, make, names: list[str], medium: str | None) -> None:
    spectra = open_spectra([make(tmp_path)])
    assert len(spectra) == N
    assert [spectra.name(i) for i in range(N)] == names
    # In order, and back again, as a survey that goes on may read them.
    for i in (0, 2, 3, 4, 1):
        spectrum = spectra.read(i)
        assert spectrum.name == names[i]
        assert spectrum.medium == medium
        np.testing.assert_allclose(spectrum.wavelength, WAVELENGTH)
        np.testing.assert_allclose(spectrum.flux, FLUX[i])
        np.testing.assert_allclose(np.asarray(spectrum.error)[spectrum.used], 0.01)
        assert (spectrum.used.sum() == PIXELS) == (i != 2)


def test_the_header_of_an_image_may_hold_the_wavelengths(tmp_path: Path) -> None:
    spectrum = open_spectra([images(tmp_path / "plate.fits", wavelength=None)]).read(3)
    np.testing.assert_allclose(spectrum.wavelength, 10 ** (np.log10(5000.0) + 1e-5 * np.arange(PIXELS)))
    assert spectrum.n_nan == 0


def test_what_the_user_says_of_unit_and_medium_is_believed(tmp_path: Path) -> None:
    spectra = open_spectra([images(tmp_path / "t.fits")], unit="angstrom", medium="air")
    assert spectra.read(0).medium == "air"
    assert spectra.read(0).notes == ("medium_overridden",)
    with pytest.raises(SpectrumError, match="unit 'nanometre' is not known"):
        open_spectra([tmp_path / "t.fits"], unit="nanometre")


def test_files_with_one_spectrum_each_stay_what_they_are(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        np.savetxt(tmp_path / name, np.stack([WAVELENGTH, FLUX[0]], axis=-1))
    Table({"WAVE": [WAVELENGTH], "FLUX": FLUX[:1]}).write(tmp_path / "one.fits")
    spectra = open_spectra([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert len(spectra) == 2
    assert spectra.name(1) == str(tmp_path / "b.txt")
    assert open_spectra([tmp_path / "one.fits"]).read(0).name == "one.fits"
    assert open_spectra([tmp_path / "one.fits"]).identity != open_spectra([tmp_path / "a.txt"]).identity


def test_a_table_beside_other_files_is_refused(tmp_path: Path) -> None:
    table, plates = parquet(tmp_path / "t.parquet"), columns(tmp_path / "t.fits")
    with pytest.raises(SpectrumError, match=r"t.parquet holds many spectra: give it alone"):
        open_spectra([table, plates])
    with pytest.raises(SpectrumError, match=r"^t.fits holds 5 spectra: give it alone"):
        ObservedSpectrum.read(plates)


def test_what_is_no_table_of_spectra_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpectrumError, match="no file at"):
        open_spectra([tmp_path / "none.parquet"])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(SpectrumError, match=r"bad.parquet cannot be read as Parquet"):
        open_spectra([tmp_path / "bad.parquet"])
    pyarrow.parquet.write_table(pyarrow.table({"teff": [5000.0]}), tmp_path / "labels.parquet")
    with pytest.raises(SpectrumError, match=r"labels.parquet has no column of arrays"):
        open_spectra([tmp_path / "labels.parquet"])
    pyarrow.parquet.write_table(pyarrow.table({"flux": pyarrow.array([], pyarrow.list_(pyarrow.float64()))}),
                                tmp_path / "empty.parquet")  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table({"flux": list(FLUX), "x": list(FLUX)}), tmp_path / "blind.parquet")
    with pytest.raises(SpectrumError, match="no column of flux, x is recognised as wavelength"):
        open_spectra([tmp_path / "blind.parquet"])
    with pytest.raises(SpectrumError, match="has no rows"):
        open_spectra([tmp_path / "empty.parquet"])
    short = parquet(tmp_path / "short.parquet", error=[WAVELENGTH, WAVELENGTH[:3], *[None] * 3])
    spectra = open_spectra([short])
    with pytest.raises(SpectrumError, match=r"^error has 3 pixels, wavelength 40$"):
        spectra.read(1)
    with pytest.raises(SpectrumError, match=r"^error has 0 pixels"):
        spectra.read(2)
    with fits.open(images(tmp_path / "rows.fits")) as hdus:
        hdus["IVAR"].data = IVAR[:2]
        hdus.writeto(tmp_path / "fewer.fits")
    with pytest.raises(SpectrumError, match=r"^fewer.fits: IVAR has 2 rows, FLUX 5$"):
        open_spectra([tmp_path / "fewer.fits"])
    damaged = (columns(tmp_path / "d.fits")).read_bytes()
    (tmp_path / "d.fits").write_bytes(damaged[:6000])
    with pytest.raises(SpectrumError, match=r"d.fits"):
        open_spectra([tmp_path / "d.fits"]).read(4)
