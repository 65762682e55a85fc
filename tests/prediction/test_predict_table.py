"""A table of labels becomes a store of spectra: the same ones as from predict, resumable, in bounded memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from shell import refuse, run

import starpayne
from starpayne import bundle
from starpayne.bundle import Model
from starpayne.errors import LabelError, OutputExistsError, RecipeError
from starpayne.prediction import LabelTable, Predictions, predict_table
from starpayne.prediction.run import rows_of_a_while, rows_of_chunk

NAMES = toy.SPACE.names
CHUNK_OF_TEN = 10 * 4 * 4 * len(toy.WAVELENGTH)
"""Bytes of memory that make chunks of ten spectra."""


def write_table(path: Path, values: np.ndarray, **columns: list[Any]) -> Path:
    """Write labels, in an order that is not the model's, behind other columns, as the suffix says."""
    table = {**columns, **{name: values[:, NAMES.index(name)].tolist() for name in reversed(NAMES)}}
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(table), path)
    elif path.suffix == ".ecsv":
        from astropy.table import Table

        Table(table).write(path, format="ascii.ecsv")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def stop_after(chunks: int) -> Callable[[int, int], None]:
    """A progress callback that presses Ctrl-C when so many chunks are done."""

    def progress(done: int, of: int) -> None:
        if done >= 10 * chunks:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ecsv"])
def test_every_row_gets_the_spectrum_of_predict(suffix: str, payne_model: Model, tmp_path: Path) -> None:
    values = toy.labels(25)
    files = [f"star {i} Å.fits" for i in range(25)]
    sources = [2**62 + i for i in range(25)]
    table = write_table(tmp_path / f"t{suffix}", values, file=files, source_id=sources, snr=[1.5] * 25)
    found = predict_table(payne_model, table, tmp_path / "s.zarr", memory=CHUNK_OF_TEN, name="payne.model")
    assert found.chunk == 10
    assert found.status.tolist() == [1] * 25
    np.testing.assert_allclose(found.labels(), values, rtol=1e-12)
    np.testing.assert_allclose(found.flux(), payne_model.emulator.predict(values).flux, atol=1e-6)
    assert found.column("file") == files
    assert found.column("source_id") == [str(i) for i in sources]
    assert found.provenance["predicted_by"]["digest"] == bundle.digest(payne_model.emulator)
    assert found.provenance["physics"] == list(toy.PHYSICS)
    assert found.dataset["flux"].dims == ("spectrum", "wavelength")
    assert found.dataset["label"].values.tolist() == list(NAMES)


def test_rows_outside_the_range_are_flagged_and_the_others_predicted(payne_model: Model, tmp_path: Path) -> None:
    values = toy.labels(4)
    values[:, 0], values[:, 1] = 6000, 4
    values[1, 0], values[2, 3], values[3, :2] = 9000, np.nan, (4500, 1.2)
    table = write_table(tmp_path / "t.csv", values)
    found = predict_table(payne_model, table, tmp_path / "s.zarr")
    assert [found.flags(i) for i in range(4)] == [
        (), ("not_predicted",), ("not_predicted",),
        ("no_molecules_below_5000_K", "plane_parallel_below_logg_1.5"),
    ]  # fmt: skip
    assert np.isnan(found.flux()).all(axis=1).tolist() == [False, True, True, False]
    assert found.status.tolist() == [1] * 4
    further = predict_table(payne_model, table, tmp_path / "e.zarr", extrapolate=True)
    assert [further.flags(1), further.flags(2)] == [("extrapolated",), ("not_predicted",)]
    expected = payne_model.emulator.predict(values[1], extrapolate=True).flux
    np.testing.assert_allclose(further.flux([1])[0], expected, atol=1e-6)


def test_a_table_in_bfloat16_is_near_and_is_another(transformer_model: Model, tmp_path: Path) -> None:
    values = toy.labels(5)
    table = write_table(tmp_path / "t.csv", values)
    found = predict_table(transformer_model, table, tmp_path / "s.zarr", precision="bfloat16")
    assert found.provenance["predicted_by"]["precision"] == "bfloat16"
    missed = np.abs(found.flux() - transformer_model.emulator.predict(values).flux)
    assert 0 < missed.max() < 0.01
    with pytest.raises(OutputExistsError, match="precision"):
        predict_table(transformer_model, table, tmp_path / "s.zarr")
    with pytest.raises(RecipeError, match="precision = 'half' is not known"):
        predict_table(transformer_model, table, tmp_path / "t.zarr", precision="half")


def test_a_prediction_that_was_stopped_ends_with_the_same_bytes(payne_model: Model, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", toy.labels(45), id=[str(i) for i in range(45)])
    predict_table(payne_model, table, tmp_path / "whole.zarr", memory=CHUNK_OF_TEN)
    for chunks in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            predict_table(
                payne_model, table, tmp_path / "s.zarr", memory=CHUNK_OF_TEN, progress=stop_after(chunks)
            )  # fmt: skip
        stopped = Predictions.open(tmp_path / "s.zarr")
        assert stopped.status.sum() == 10 * chunks
        assert np.flatnonzero(stopped.flagged("missing")).tolist() == list(range(10 * chunks, 45))
        assert stopped.flags(44) == ("missing",)
        assert stopped.flags(0) == ()
    # Other memory at hand than when it began: the chunks stay as they are.
    seen: list[tuple[int, int]] = []
    predict_table(payne_model, table, tmp_path / "s.zarr", progress=lambda done, of: seen.append((done, of)))
    assert seen == [(0, 45), (10, 45), (20, 45), (30, 45), (40, 45), (45, 45)]
    assert contents(tmp_path / "s.zarr") == contents(tmp_path / "whole.zarr")
    assert not Predictions.open(tmp_path / "s.zarr").flagged("missing").any()


def test_a_chunk_whose_status_was_not_written_is_predicted_again(payne_model, tmp_path, monkeypatch) -> None:
    table = write_table(tmp_path / "t.csv", toy.labels(20))
    predict_table(payne_model, table, tmp_path / "whole.zarr", memory=CHUNK_OF_TEN)
    monkeypatch.setattr("starpayne.prediction.store.DONE", "killed here")
    with pytest.raises(ValueError, match="killed here"):
        predict_table(payne_model, table, tmp_path / "s.zarr", memory=CHUNK_OF_TEN)
    monkeypatch.undo()
    assert Predictions.open(tmp_path / "s.zarr").status.tolist() == [0] * 20
    predict_table(payne_model, table, tmp_path / "s.zarr")
    assert contents(tmp_path / "s.zarr") == contents(tmp_path / "whole.zarr")


def test_spectra_of_other_settings_are_not_gone_on_with(payne_model, additive_model, tmp_path) -> None:
    table, out = write_table(tmp_path / "t.csv", toy.labels(5)), tmp_path / "s.zarr"
    predict_table(payne_model, table, out)
    with pytest.raises(OutputExistsError, match=r"holds spectra of other settings \(model\); give another path"):
        predict_table(additive_model, table, out)
    with pytest.raises(OutputExistsError, match=r"\(extrapolate, wavelengths\)"):
        predict_table(payne_model, table, out, wavelength=toy.WAVELENGTH[3:9], extrapolate=True)
    write_table(table, toy.labels(6))
    with pytest.raises(OutputExistsError, match=r"\(table\)"):
        predict_table(payne_model, table, out)
    assert len(predict_table(payne_model, table, out, overwrite=True)) == 6
    with pytest.raises(OutputExistsError, match=r"cannot be gone on with \(no predicted spectra at"):
        predict_table(payne_model, table, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teff,logg\n5000,4\n", r"t.csv lacks the label columns alpha_fe, vmic, mg_fe \(it has teff, logg\)"),
        ("Teff,logg,alpha_fe,vmic,mg_fe\n", r"lacks the label columns teff; did you mean 'Teff'\?"),
        ("teff,logg,alpha_fe,vmic,mg_fe\n", r"t.csv has no rows"),
        ("teff,logg,alpha_fe,vmic,mg_fe\n1,2,3,4,5\n1,2,hot,4,5\n", r"line 3: alpha_fe = 'hot' is not a number"),
        ("teff,logg,alpha_fe,vmic,mg_fe\n1,2,3\n", r"line 2: 3 values for 5 columns"),
        ("teff,teff,logg,alpha_fe,vmic,mg_fe\n", r"has the column 'teff' more than once"),
        ("", r"has no header"),
        ('teff,logg,alpha_fe,vmic,mg_fe\n1,2,3,4,"5"x\n', r"cannot be read as a table"),
        ("id,teff,logg,alpha_fe,vmic,mg_fe\n" + 300 * "x" + ",1,2,3,4,5\n", r"column id has more than 256 bytes"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(LabelError, match=message):
        LabelTable.open(tmp_path / "t.csv", NAMES)


def test_other_files_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no table of labels at"):
        LabelTable.open(tmp_path / "no.csv", NAMES)
    with pytest.raises(LabelError, match=r"tables of labels are read as .parquet, .csv, .ecsv"):
        LabelTable.open(tmp_path / "t.fits", NAMES)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(LabelError, match="cannot be read as Parquet"):
        LabelTable.open(tmp_path / "t.parquet", NAMES)
    table = write_table(tmp_path / "u.parquet", toy.labels(2)[:, :4].repeat(2, axis=1)[:, :5])
    assert LabelTable.open(table, NAMES).n == 2
    with pytest.raises(LabelError, match="the column file holds string, not numbers"):
        LabelTable.open(write_table(table, toy.labels(2), file=["a", "b"]), ("file", *NAMES))


def test_blocks_are_of_one_size_however_the_file_is_cut(monkeypatch, tmp_path: Path) -> None:
    values = toy.labels(23)
    monkeypatch.setattr("starpayne.prediction.table.ROWS_READ", 4)
    for suffix in (".csv", ".parquet"):
        table = LabelTable.open(write_table(tmp_path / f"t{suffix}", values, id=[f"{i}" for i in range(23)]), NAMES)
        blocks = list(table.blocks(10))
        assert [len(block.labels) for block in blocks] == [10, 10, 3]
        np.testing.assert_array_equal(np.concatenate([block.labels for block in blocks]), values)
        assert [text for block in blocks for text in block.ids["id"]] == [str(i) for i in range(23)]


@pytest.mark.parametrize(
    ("wavelengths", "rows", "memory", "chunk"),
    [(40, 10**6, 2**28, 4096), (40, 7, 2**28, 7), (10**6, 10**6, 2**28, 16), (10**9, 10**6, 2**28, 1)],
)
def test_chunks_follow_from_the_memory(wavelengths: int, rows: int, memory: int, chunk: int) -> None:
    assert rows_of_chunk(wavelengths, 1, rows, memory) == chunk


def test_a_slow_emulator_has_short_chunks(payne_model: Model) -> None:
    shipped, payne = starpayne.load().emulator, payne_model.emulator
    assert rows_of_a_while(payne, payne.native_wavelength) > 4096
    assert 100 < rows_of_a_while(shipped, shipped.native_wavelength) < 1000
    assert rows_of_a_while(shipped, np.linspace(5165.0, 5200.0, 10**6)) == 1


def test_memory_does_not_grow_with_the_spectra(payne_model: Model, tmp_path: Path) -> None:
    model = bundle.save(payne_model, tmp_path / "m.model")
    first, table = write_table(tmp_path / "f.csv", toy.labels(500)), write_table(tmp_path / "t.csv", toy.labels(1500))
    before, after, size = json.loads(
        toy.python(
            """
            import json, sys
            from starpayne import bundle
            from starpayne.prediction import predict_table
            from starpayne.wavelengths import log_grid

            def peak():
                # Not ru_maxrss: a child begins with its parent's.
                return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

            model, first, table, out = sys.argv[1:]
            emulator = bundle.load(model)
            wavelength = log_grid(5000.1, 5009.7, 5000 / 9.6 * 20_000)
            # What imports, compilation and the heaps of threads take is not the spectra's: of 100 rows not all yet.
            predict_table(emulator, first, out + ".first", wavelength=wavelength, memory=2**23)
            before = peak()
            found = predict_table(emulator, table, out, wavelength=wavelength, memory=2**23)
            print(json.dumps([before, peak(), 4 * len(found) * len(found.wavelength)]))
            """,
            # Optimised as for users: there is much to compute.
            model, first, table, tmp_path / "s.zarr", environment={"XLA_FLAGS": ""},
        )
    )  # fmt: skip
    assert size > 118e6
    assert after < 1e9
    assert after - before < 0.3 * size, (before, after)


def test_from_the_shell(payne_model: Model, tmp_path: Path, monkeypatch, capsys) -> None:
    model = bundle.save(payne_model, tmp_path / "m.model")
    values = toy.labels(12)
    values[3, 0] = 9000
    table = write_table(tmp_path / "t.csv", values, file=list("abcdefghijkl"))
    words = ["predict", "--model", model, "--labels", table]
    assert "--labels TABLE needs --out" in refuse(monkeypatch, capsys, *words)
    out = tmp_path / "s.zarr"
    said = run(*words, "--out", out, "--low", 5002, "--high", 5008, "--json", tmp_path / "j.json")
    assert "12 rows, 24 wavelengths (air)" in " ".join(said.split())
    assert "flag not_predicted: 1 rows" in said
    assert json.loads((tmp_path / "j.json").read_text())["flags"]["not_predicted"] == 1
    assert Predictions.open(out).column("file", [2]) == ["c"]
