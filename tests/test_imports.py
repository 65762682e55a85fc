"""What an import costs: prediction and training start without the libraries that only other rooms need."""

from __future__ import annotations

import pytest
import toy

from starpayne import bundle

HEAVY = ["astropy", "xarray", "zarr", "dask", "distributed", "specutils", "matplotlib", "scipy.stats"]


@pytest.mark.parametrize("modules", ["starpayne.emulators, starpayne.bundle, starpayne.training", "starpayne.grid"])
def test_heavy_libraries_are_not_imported(modules: str) -> None:
    found = toy.python(f"import sys, {modules}; print([m for m in {HEAVY} if m in sys.modules])")
    assert found.strip() == "[]"


def test_a_model_is_loaded_and_predicts_without_heavy_libraries(payne_model, tmp_path) -> None:
    path = bundle.save(payne_model, tmp_path / "m")
    found = toy.python(
        f"""
        import sys
        from starpayne import bundle

        emulator = bundle.load({str(path)!r}).emulator
        print(emulator.predict((emulator.space.low + emulator.space.high) / 2).flux.shape)
        print([m for m in {HEAVY} if m in sys.modules])
        """
    )
    assert found.splitlines() == ["(40,)", "[]"]


def test_jax_is_left_in_the_mode_it_was_in() -> None:
    script = "import jax, starpayne.emulators, starpayne.training; print(jax.config.jax_enable_x64)"
    assert toy.python(script).strip() == "False"


def test_labels_and_wavelengths_do_without_jax() -> None:
    script = "import sys, starpayne.labels, starpayne.wavelengths, starpayne.errors; print('jax' in sys.modules)"
    assert toy.python(script).strip() == "False"
