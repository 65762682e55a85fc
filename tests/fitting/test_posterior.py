"""Draws from the posterior: they agree with the fit where it is Gaussian, and know the priors where it is not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import equinox as eqx
import numpy as np
import pytest
from known_star import RESOLUTION, TRUTH

from starpayne import plots
from starpayne.bundle import Model, digest
from starpayne.errors import LabelError, MissingExtraError, SpectrumError
from starpayne.fitting import FitOptions, LineMask, Posterior, sample

KNOWN = {"teff": 5600.0, "logg": 3.6, "feh": -0.2, "alpha_fe": 0.15}
MG_ALONE = FitOptions(fix=KNOWN, rv=0.0, vsini=8.0)


@pytest.fixture(scope="module")
def drawn(star_model, observe) -> Posterior:
    """A star whose every parameter the spectrum knows."""
    return sample(observe(), star_model, RESOLUTION, draws=300, warmup=80, seed=1)


@pytest.fixture(scope="module")
def blind_to_mg(star_model) -> Model:
    """A model whose spectra do not depend on [Mg/Fe]."""
    weights = star_model.emulator.weights
    return eqx.tree_at(lambda m: m.weights[0], star_model.emulator, weights[0].at[-1].set(0.0))


def check_a_gaussian_posterior_agrees_with_the_errors_of_the_fit(drawn: Posterior) -> None:
    result = drawn.result
    best = np.array([*result.labels.values(), result.rv, result.vsini])
    sigma = np.sqrt(np.diag(result.covariance))
    assert drawn.names == result.names
    assert drawn.samples.shape == (2, 300, 7)
    assert drawn.samples.dtype == np.float64
    np.testing.assert_allclose((drawn.flat.mean(0) - best) / sigma, 0, atol=0.3)
    np.testing.assert_allclose(drawn.flat.std(0) / sigma, 1, atol=0.2)
    assert drawn.flags == result.flags
    assert drawn.divergences == 0


def check_draws_are_correlated_as_the_fit_says(drawn: Posterior) -> None:
    np.testing.assert_allclose(np.corrcoef(drawn.flat.T), drawn.result.correlation, atol=0.15)


def check_an_interval_holds_its_fraction_of_the_draws(drawn: Posterior) -> None:
    median, low, high = drawn.interval("teff", 0.9)
    teff = drawn.flat[:, 0]
    assert np.mean((teff > low) & (teff < high)) == pytest.approx(0.9, abs=0.01)
    assert np.mean(teff < median) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(LabelError, match=r"'tef' was not sampled; did you mean 'teff'\? \(sampled: teff, logg"):
        drawn.interval("tef")
    with pytest.raises(SpectrumError, match="level = 68 is outside the range 0 to 1"):
        drawn.interval("teff", 68)


def check_the_summary_is_json_and_the_file_holds_the_draws(drawn: Posterior, tmp_path) -> None:
    summary = json.loads(json.dumps(drawn.summary(), allow_nan=False))
    assert list(summary["parameters"]) == list(drawn.names)
    assert summary["parameters"]["logg"]["median"] == drawn.interval("logg")[0]
    drawn.write(tmp_path / "new" / "star.npz")
    with np.load(tmp_path / "new" / "star.npz") as file:
        np.testing.assert_array_equal(file["samples"], drawn.samples)
        assert tuple(file["names"]) == drawn.names
    with pytest.raises(SpectrumError, match=r"star\.txt: draws are written as \.npz"):
        drawn.write(tmp_path / "star.txt")


def check_chains_that_did_not_mix_are_flagged(drawn: Posterior) -> None:
    def flags(r_hat: float, n_eff: float) -> tuple[str, ...]:
        return Posterior(drawn.result, ("teff",), drawn.samples[..., :1], {"teff": r_hat}, {"teff": n_eff}, 0).flags

    assert "not_converged" not in flags(1.01, 200.0)
    assert "not_converged" in flags(1.06, 200.0)
    assert "not_converged" in flags(1.01, 99.0)
    assert "not_converged" in flags(np.nan, 200.0)


def check_the_corner_figure_names_every_parameter_and_marks_the_best_fit(drawn: Posterior, tmp_path) -> None:
    figure = plots.corner(drawn)
    panels = np.array(figure.axes).reshape(7, 7)
    assert [axis.get_xlabel() for axis in panels[-1, [0, 4, 5]]] == [
        "$T_\\mathrm{eff}$ (K)", "[Mg/Fe] (dex)", "radial velocity (km s$^{-1}$)",
    ]  # fmt: skip
    lines = [line.get_xdata()[0] for line in panels[0, 0].lines]
    assert drawn.result.labels["teff"] in lines
    assert np.any(np.isclose(lines, drawn.interval("teff")[0]))
    figure.savefig(tmp_path / "corner.png")
    assert (tmp_path / "corner.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_label_that_the_spectrum_does_not_show_fills_what_its_constraint_leaves(blind_to_mg, observe) -> None:
    posterior = sample(observe(), Model(blind_to_mg), RESOLUTION, MG_ALONE, draws=300, warmup=60)
    assert posterior.names == ("mg_fe",)
    assert "unconstrained:mg_fe" in posterior.flags
    low, high = TRUTH[3] - 0.4, TRUTH[3] + 0.4
    filled = (np.sort(posterior.flat[:, 0]) - low) / (high - low)
    assert filled[0] >= 0
    assert filled[-1] <= 1
    # Kolmogorov–Smirnov: 1.63/√n is the 1 % level of n independent draws.
    uniform = (np.arange(len(filled)) + 0.5) / len(filled)
    assert np.max(np.abs(filled - uniform)) < 1.63 / np.sqrt(posterior.n_eff["mg_fe"])


def test_the_same_seed_gives_the_same_draws_and_another_one_others(star_model, observe) -> None:
    first, again, other = (
        sample(observe(), star_model, RESOLUTION, MG_ALONE, draws=60, warmup=60, seed=seed).samples
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)
    mask = LineMask((), "air", None, {"mg_fe": 0.05}, ("mg_fe",), digest(star_model.emulator))
    shifted = sample(observe(), star_model, RESOLUTION, replace(MG_ALONE, line_mask=mask), draws=60, warmup=60, seed=3)
    np.testing.assert_allclose(shifted.samples, first - 0.05, atol=1e-12)
    assert shifted.result.zero_points == {"mg_fe": 0.05}


@pytest.mark.thorough
def test_a_prior_narrows_its_label(star_model, observe) -> None:
    options = FitOptions(fix=KNOWN, rv=0.0, vsini=8.0, prior={"mg_fe": (0.31, 0.002)})
    posterior = sample(observe(snr=30), star_model, RESOLUTION, options, draws=200, warmup=60)
    free = sample(observe(snr=30), star_model, RESOLUTION, MG_ALONE, draws=200, warmup=60)
    assert free.flat.std() > 0.005
    assert posterior.flat.std() == pytest.approx((0.002**-2 + free.flat.std() ** -2) ** -0.5, rel=0.15)
    assert posterior.flat.mean() == pytest.approx(0.31, abs=0.002)


@pytest.mark.thorough
def test_rotation_too_slow_to_see_has_a_flat_density_at_zero(star_model, observe) -> None:
    fix = {**KNOWN, "mg_fe": 0.3}
    spectrum = observe(vsini=0.0, snr=50)
    posterior = sample(spectrum, star_model, RESOLUTION, FitOptions(fix=fix, rv=0.0), draws=500, warmup=60)
    vsini = posterior.flat[:, 0]
    assert vsini.min() > 0
    # χ² is even in v sin i: near zero the density is that of the prior, which is flat in km/s.
    edge = np.quantile(vsini, 0.4)
    assert np.mean(vsini < edge / 2) == pytest.approx(0.2, abs=0.04)


def test_progress_runs_to_the_end(star_model, observe) -> None:
    seen = []
    sample(
        observe(), star_model, RESOLUTION, MG_ALONE, draws=60, warmup=60,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(50, 120), (100, 120), (120, 120)]


def test_what_cannot_be_sampled_is_said(star_model, observe) -> None:
    with pytest.raises(SpectrumError, match="draws = 3 is outside the range 50 to 1000000"):
        sample(observe(), star_model, RESOLUTION, draws=3)
    everything = FitOptions(fix={**KNOWN, "mg_fe": 0.3}, rv=0.0, vsini=8.0)
    with pytest.raises(SpectrumError, match="every parameter is fixed: there is no posterior to draw from"):
        sample(observe(), star_model, RESOLUTION, everything)


def _hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)


def test_without_numpyro_the_extra_that_brings_it_is_named(monkeypatch, star_model, observe) -> None:
    _hide(monkeypatch, "numpyro")
    with pytest.raises(MissingExtraError, match=r'NumPyro is missing .*run: pip install "starpayne\[sampling\]"'):
        sample(observe(), star_model, RESOLUTION)


def check_without_corner_the_extra_that_brings_it_is_named(monkeypatch, drawn: Posterior) -> None:
    _hide(monkeypatch, "corner")
    with pytest.raises(MissingExtraError, match=r'corner is missing .*run: pip install "starpayne\[sampling\]"'):
        plots.corner(drawn)


@pytest.mark.slow
def test_the_posterior_of_a_well_constrained_star(drawn: Posterior, tmp_path, monkeypatch, star_model, observe) -> None:
    """One test, because the draws take a while and every process of a run in parallel would make its own."""
    check_a_gaussian_posterior_agrees_with_the_errors_of_the_fit(drawn)
    check_draws_are_correlated_as_the_fit_says(drawn)
    check_an_interval_holds_its_fraction_of_the_draws(drawn)
    check_the_summary_is_json_and_the_file_holds_the_draws(drawn, tmp_path)
    check_chains_that_did_not_mix_are_flagged(drawn)
    check_the_corner_figure_names_every_parameter_and_marks_the_best_fit(drawn, tmp_path)
    check_without_corner_the_extra_that_brings_it_is_named(monkeypatch, drawn)
