"""Training data: cut from the grid by its split, in its order, and recognised again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy

from starpayne.errors import TrainingError
from starpayne.grid import Failure, Grid, Split
from starpayne.training import TrainingData

ORDER = tuple(int(i) for i in np.random.default_rng(1).permutation(60))


def test_the_first_n_of_the_training_order_train(tmp_path: Path) -> None:
    grid = toy.write_grid(tmp_path / "g", split=Split(ORDER[:40], ORDER[40:50], ORDER[50:]))
    for n in (2, 17, 40, None):
        data = TrainingData.from_grid(grid, n)
        rows = list(ORDER[: n or 40])
        assert data.split == {"train": rows, "validation": list(ORDER[40:50]), "test": list(ORDER[50:])}
        np.testing.assert_array_equal(data.labels, grid.labels[rows])
        np.testing.assert_array_equal(data.targets[:, 0], grid.flux(rows))
        np.testing.assert_array_equal(data.validation_targets[:, 0], grid.flux(ORDER[40:50]))


def test_without_validation_spectra_some_training_spectra_validate_instead(tmp_path: Path) -> None:
    grid = toy.write_grid(tmp_path / "g", split=Split(ORDER[:50], (), ORDER[50:]))
    data = TrainingData.from_grid(grid)
    train, validation = data.split["train"], data.split["validation"]
    assert validation == [ORDER[10], ORDER[30]]
    assert train == [row for row in ORDER[:50] if row not in validation]  # the order stays
    assert not set(validation) & set(ORDER[50:])
    # Of --n-train spectras, never of those beyond.
    fewer = TrainingData.from_grid(grid, 25)
    assert sorted(fewer.split["train"] + fewer.split["validation"]) == sorted(ORDER[:25])
    assert TrainingData.from_grid(grid, 25).fingerprint == fewer.fingerprint


def test_spectra_that_failed_are_passed_over(tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "g")
    flux, continuum = toy.spectra(grid.labels), toy.continua(grid.labels)
    for row in range(60):
        if row not in (1, 45):
            grid.write(row, flux=flux[row], continuum=continuum[row])
    grid.fail([Failure(1, {}, "no"), Failure(45, {}, "no")])
    data = TrainingData.from_grid(Grid.open(tmp_path / "g"), 5)
    assert data.split["train"] == [0, 2, 3, 4, 5]
    assert 45 not in data.split["validation"]
    assert len(data.validation_labels) == 9


def test_the_continuum_is_trained_as_its_logarithm(finished_grid: Grid) -> None:
    data = TrainingData.from_grid(finished_grid, 4, channels=("flux", "log10_continuum"))
    assert data.targets.shape == (4, 2, 40)
    assert data.targets.dtype == np.float32
    np.testing.assert_allclose(10.0 ** data.targets[:, 1].astype(float), finished_grid.continuum(range(4)), rtol=1e-5)
    assert data.channels == ("flux", "log10_continuum")


def test_the_domain_comes_from_the_grid(finished_grid: Grid) -> None:
    domain = TrainingData.from_grid(finished_grid).domain
    assert (domain.low, domain.high) == (toy.WAVELENGTH[0], toy.WAVELENGTH[-1])
    assert (domain.medium, domain.resolution, domain.physics) == ("air", None, toy.PHYSICS)
    assert domain.sampling == pytest.approx(20000)


@pytest.mark.parametrize(
    ("split", "n", "channels", "text"),
    [
        (
            toy.SPLIT,
            41,
            ("flux",),
            r"--n-train 41 is outside the range 1 to 40: the grid's split has 40 usable training",
        ),
        (toy.SPLIT, 0, ("flux",), r"--n-train 0 is outside the range 1 to 40"),
        (toy.SPLIT, 1, ("flux",), r"1 training and 10 validation spectra are too few; at least 2 and 1 are needed"),
        (
            Split(ORDER[:10], (), ()),
            None,
            ("flux",),
            r"10 training and 0 validation spectra are too few; .*\(11 training",
        ),
        (Split((), ORDER, ()), None, ("flux",), r"0 training and 60 validation spectra are too few"),
        (toy.SPLIT, None, ("flux", "colour"), r"channels = \('flux', 'colour'\): choose \('flux',\) or"),
    ],
)
def test_too_few_spectra_are_refused(tmp_path: Path, split: Split, n: int | None, channels, text: str) -> None:
    grid = toy.write_grid(tmp_path / "g", split=split)
    with pytest.raises(TrainingError, match=text):
        TrainingData.from_grid(grid, n, channels)


def test_eleven_spectra_are_enough_where_no_validation_spectra_are_named(tmp_path: Path) -> None:
    data = TrainingData.from_grid(toy.write_grid(tmp_path / "g", split=Split(ORDER[:11], (), ())))
    assert (len(data.labels), len(data.validation_labels)) == (10, 1)


def test_the_same_data_have_one_fingerprint_and_others_another() -> None:
    data = toy.data()
    assert data.fingerprint == toy.data().fingerprint
    split = {**data.split, "train": data.split["train"][::-1]}
    flux = data.targets.copy()
    flux[0, 0, 0] += 1e-3  # a corrected grid with the same labels and provenance
    others = [
        toy.data(("flux", "log10_continuum")),
        replace(data, split=split),
        replace(data, source={**data.source, "fingerprint": "another grid"}),
        replace(data, targets=flux),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5
