"""A prediction takes less than 1 GB, whatever the number of stars and of wavelengths."""

from __future__ import annotations

import json

import pytest
import toy

from starpayne.emulators.base import PREDICT_MEMORY


@pytest.mark.parametrize(
    ("model", "stars", "wavelengths"),
    # A Payne computes all its pixels, whatever is asked for: nothing but pieces of the table of labels keep it small.
    [("mgb_fast", 80_000, 10), ("mgb", 1, 100_000)],
    ids=["many stars by a Payne", "many wavelengths by a TransformerPayne"],
)
def test_a_shipped_model_stays_under_one_gigabyte(model: str, stars: int, wavelengths: int) -> None:
    before, after, output = json.loads(
        toy.python(
            """
            import json, sys
            import numpy as np
            import starpayne

            def peak():
                # Not ru_maxrss: a child begins with its parent's.
                return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

            stars, wavelengths = map(int, sys.argv[2:])
            emulator = starpayne.load(sys.argv[1]).emulator
            domain = emulator.domain
            wavelength = np.linspace(domain.low, domain.high, wavelengths)
            labels = emulator.space.sobol(stars, 0)
            before = peak()
            found = emulator.predict(labels if stars > 1 else labels[0], wavelength)
            assert np.all(np.isfinite(found.flux))
            print(json.dumps([before, peak(), found.flux.nbytes]))
            """,
            # Optimised as for users: there is much to compute.
            model, stars, wavelengths, environment={"XLA_FLAGS": ""},
        )
    )  # fmt: skip
    assert after < 1e9
    assert after - before < 2 * PREDICT_MEMORY + 2 * output, (before, after)
