"""Uploads: a spectrum is read, anything else is refused with a sentence that is plain text."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from astropy.io import fits

from starpayne.errors import SpectrumError
from starpayne.explorer.upload import LARGEST, read_upload, safe_name
from starpayne.explorer.wording import as_html


def image(header: dict | None = None) -> bytes:
    hdu = fits.PrimaryHDU(np.ones(50, np.float32))
    hdu.header.update({"CRVAL1": 5000.0, "CDELT1": 0.1, "CTYPE1": "AWAV", "CUNIT1": "Angstrom"} | (header or {}))
    data = BytesIO()
    hdu.writeto(data)
    return data.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_text_and_fits_are_read_packed_or_not(observe: Callable, as_text: Callable, packed: bool) -> None:
    star = observe()
    for name, content, n in (("a/star.txt", as_text(star), int(star.used.sum())), ("C:\\star.fits", image(), 50)):
        spectrum = read_upload(name, gzip.compress(content) if packed else content)
        assert len(spectrum) == n
        assert spectrum.medium == "air"
        assert spectrum.name in ("star.txt", "star.fits")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x00\x01\x02" * 1000, "x.dat is neither text nor FITS"),
        (bytes(range(128, 256)) * 100, "x.dat is neither text nor FITS"),
        (b"", "x.dat is empty"),
        (b"cos\nsystem\n(S'echo'\ntR.", "x.dat is not a table of wavelength, flux and error"),
        (b"1 2\n" * (LARGEST // 4 + 1), r"x.dat has 20\.0 MB: at most 20 MB can be uploaded"),
        (gzip.compress(b"0" * (LARGEST + 1)), "x.dat unpacks to more than 20 MB"),
        (gzip.compress(b"1 2 3\n")[:12] + b"junk", "x.dat is a damaged gzip file"),
        (b"\x1f\x8bjunk", "x.dat is a damaged gzip file"),
        (image()[:2880] + b"short", "x.dat is a damaged FITS file|x.dat holds no spectrum|x.dat is damaged"),
        (image({"ZIMAGE": True}), "x.dat holds a compressed FITS image: unpack it first"),
    ],
)
def test_what_is_no_spectrum_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(SpectrumError, match=sentence):
        read_upload("x.dat", content)


def test_a_header_that_claims_more_than_the_file_holds_is_refused() -> None:
    claims = image().replace(b"NAXIS1  =                   50", b"NAXIS1  =           9999999999")
    with pytest.raises(SpectrumError, match=r"x\.fits"):
        read_upload("x.fits", claims)


class Tags(HTMLParser):
    """The tags that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_a_name_is_text_and_never_more() -> None:
    name = "../<img src=x onerror=alert(1)>\n\x1b[2J<script>alert(2)<\\script>.txt"
    with pytest.raises(SpectrumError) as refused:
        read_upload(name, b"\x00junk")
    assert "\n" not in str(refused.value)
    assert Tags(as_html([str(refused.value), "<b>&"])).seen == ["div"]
    assert len(safe_name("a" * 500 + ".fits")) <= 60
    assert safe_name("folder/") == "spectrum"
