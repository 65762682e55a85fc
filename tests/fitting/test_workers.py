"""Stars fitted in several processes: the results of one, whatever happens to a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import jax
import pytest
from known_star import RESOLUTION, SPACE, TRUTH

from starpayne.bundle import Model
from starpayne.errors import SpectrumError
from starpayne.fitting import FitOptions, FitResult, fit_many, workers
from starpayne.spectra import ObservedSpectrum

Observe = Callable[..., ObservedSpectrum]

FEW = FitOptions(fix=dict(zip(SPACE.names[1:], TRUTH[1:], strict=True)), vsini=8.0, rv_range=(-50.0, 50.0))
"""One label and the velocity: what the processes do is tested, not the fit."""


class Deadly(ObservedSpectrum):
    """A spectrum that ends the process it is sent to."""

    def __reduce__(self) -> tuple:
        return os._exit, (7,)


def test_two_processes_give_what_one_does(with_residuals: Model, observe: Observe) -> None:
    def missing() -> ObservedSpectrum:
        raise SpectrumError("no such file")

    spectra = [observe(rv=3.0 * i, seed=i, name=f"star {i}") for i in range(7)]
    sources = [*spectra[:3], missing, lambda: spectra[3], *spectra[4:]]
    one = list(fit_many(sources, with_residuals, RESOLUTION, FEW, at_once=2))
    two = list(fit_many(sources, with_residuals, RESOLUTION, FEW, at_once=2, workers=2))
    assert len(two) == 8
    assert str(two[3]) == "no such file"
    for mine, theirs in zip(one, two, strict=True):
        if isinstance(mine, FitResult):
            assert isinstance(theirs, FitResult)
            assert theirs.name == mine.name
            assert abs(theirs.labels["teff"] - mine.labels["teff"]) < 0.1 * mine.errors["teff"]
            assert theirs.flags == mine.flags


def test_stars_of_a_process_that_is_killed_are_fitted_again(
    star_model: Model, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = []
    start = workers._Worker.__init__

    def watched(self: workers._Worker, *arguments: object) -> None:
        start(self, *arguments)  # pyright: ignore[reportArgumentType]
        processes.append(self.process)

    monkeypatch.setattr(workers._Worker, "__init__", watched)
    names = [f"star {i}" for i in range(12)]
    results = fit_many([observe(seed=i, name=n) for i, n in enumerate(names)], star_model, RESOLUTION, FEW, 3, 2)
    first = next(results)
    processes[0].send_signal(signal.SIGKILL)
    rest = list(results)
    assert len(processes) == 3
    assert all(isinstance(outcome, FitResult) for outcome in rest)
    assert [outcome.name for outcome in [first, *rest]] == names  # pyright: ignore[reportAttributeAccessIssue]
    assert all(process.poll() is not None for process in processes)


def test_a_star_that_a_process_is_lost_with_twice_is_an_error_of_its_own(star_model: Model, observe: Observe) -> None:
    good, bad = observe(name="good"), observe(name="bad")
    deadly = Deadly(bad.wavelength, bad.flux, bad.error, medium="air", name="bad")
    outcomes = list(fit_many([good, deadly, good, good], star_model, RESOLUTION, FEW, workers=2))
    assert [isinstance(outcome, FitResult) for outcome in outcomes] == [True, False, True, True]
    assert str(outcomes[1]) == (
        "bad: the process that fitted it ended with status 7 (killed, or out of memory?), twice"
    )


def test_processes_that_cannot_start_end_the_run(star_model: Model, observe: Observe, monkeypatch) -> None:
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(SpectrumError, match=r"ended with status 1 .* before it could start: give workers = 1"):
        list(fit_many([observe()], star_model, RESOLUTION, FEW, workers=2))


def test_where_there_can_be_but_one_process(star_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpectrumError, match="workers = 0 must be at least 1"):
        fit_many([], star_model, RESOLUTION, workers=0)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(SpectrumError, match="JAX computes on gpu here: give workers = 1"):
        fit_many([], star_model, RESOLUTION, workers=2)


def test_processes_are_chosen_by_stars_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 8)
    assert [workers.suitable_workers(n) for n in (1, 99, 100, 170, 10_000)] == [1, 1, 2, 3, 8]
