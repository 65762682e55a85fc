"""The attention atlas, and the tests of whether lines of one element are alike in attention."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from shell import refuse, run

from starpayne import bundle
from starpayne.inside import Atlas, atlas, compare
from starpayne.inside.likeness import holm, lines

PIXELS = 600


def drawn(shared: bool, seed: int = 0) -> Atlas:
    """An atlas of two elements with eight lines each, whose attention is smooth noise; in lines, that of the element or
    of nothing at all."""
    random = np.random.default_rng(seed)
    wavelength = np.linspace(5000, 5060, PIXELS)
    response, noise = np.zeros((2, PIXELS)), random.normal(size=(16, PIXELS + 40))
    kernel = np.exp(-0.5 * (np.arange(-20, 21) / 6) ** 2)
    attention = np.array([np.convolve(row, kernel, mode="valid") for row in noise])
    attention /= attention.std()
    own = random.normal(size=(2, 16, 1))
    owner = random.permutation(np.repeat([0, 1], 8))
    for k, element in enumerate(owner):
        profile = np.exp(-0.5 * ((np.arange(PIXELS) - 20 - 37 * k) / 2.5) ** 2)
        response[element] += 0.1 * profile
        if shared:
            attention += 1.5 * own[element] * profile
    weights = np.exp(attention) / np.exp(attention).sum(axis=0)
    return Atlas(
        wavelength, 1 - response.sum(axis=0), weights.T[None, None], np.ones((1, 1)), ("mg_fe", "ti_fe"),
        np.ones((16, 2)), np.ones((16, PIXELS)), ("mg", "ti"), response, 1, "drawn", "air",
    )  # fmt: skip


def test_lines_that_share_attention_are_found_alike() -> None:
    for result in compare(drawn(shared=True)):
        assert result.n_lines == 8
        assert result.likeness > result.others
        assert max(result.corrected_elsewhere, result.corrected_others) < 0.02


def test_smooth_noise_is_not_found_alike_more_often_than_chance_allows() -> None:
    """Attention of pixels side by side is alike: a test that forgot it would call everything significant."""
    results = [r for seed in range(20) for r in compare(drawn(shared=False, seed=seed))]
    assert sum(r.p_elsewhere < 0.1 for r in results) <= 9
    assert sum(r.p_others < 0.1 for r in results) <= 9


def test_attention_that_knows_lines_but_not_elements_fails_the_second_test() -> None:
    one = drawn(shared=False)
    depth = 1 - one.flux
    moved = one.attention * np.exp(40 * depth[:, None] * np.linspace(-1, 1, 16))
    results = compare(replace(one, attention=moved / moved.sum(axis=-1, keepdims=True)))
    assert all(r.corrected_elsewhere < 0.02 for r in results)
    assert all(r.corrected_others > 0.05 for r in results)


def test_wings_of_one_line_are_one_line() -> None:
    wavelength = np.linspace(5000, 5010, 1000)
    row = np.exp(-0.5 * ((wavelength - 5003) / 0.3) ** 2) * (1 - np.exp(-0.5 * ((wavelength - 5003) / 0.1) ** 2))
    response = np.array([row + np.exp(-0.5 * ((wavelength - 5008) / 0.1) ** 2), np.zeros(1000)])
    found = lines(wavelength, response)
    assert [len(line.runs) for line in found] == [2, 1]


def test_holm_corrects_as_published() -> None:
    assert holm(np.array([0.01, np.nan, 0.04, 0.03])) == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)


def test_the_atlas_is_the_mean_over_held_out_stars(transformer_model, finished_grid) -> None:
    found = atlas(transformer_model, finished_grid, n_stars=3)
    network = transformer_model.emulator
    assert found.n_stars == 3
    assert found.attention.sum(axis=-1) == pytest.approx(1, abs=1e-5)
    rows = np.array(toy.SPLIT.test)[np.rint(np.linspace(0, 9, 3)).astype(int)]
    stars = jnp.asarray(finished_grid.labels[rows], jnp.float32)
    bound = network.on(found.wavelength)
    spectra, weights = jax.jit(lambda labels: network.watched(network.tokens(labels), bound.encoding))(stars)
    assert found.flux == pytest.approx(np.asarray(spectra[:, 0]).mean(axis=0), abs=1e-5)
    assert found.attention == pytest.approx(np.asarray(weights).mean(axis=1).transpose(0, 2, 1, 3), abs=1e-5)
    assert np.all(found.ablation_total > 0)
    assert found.gradient.shape == (4, 5)
    assert found.elements == ("mg",)
    by_mg = np.abs(jax.jit(jax.vmap(jax.jacfwd(bound)))(stars)[..., 4]).mean(axis=0)
    assert found.response[0] == pytest.approx(np.asarray(by_mg), rel=1e-3, abs=1e-5)


def test_the_command_writes_the_atlas(transformer_model, finished_grid, tmp_path) -> None:
    path, out = bundle.save(transformer_model, tmp_path / "m"), tmp_path / "atlas"
    text = run("attention", path, finished_grid.path, "--out", out, "--n-stars", 2, "--json", tmp_path / "a.json")
    facts = json.loads((tmp_path / "a.json").read_text())
    assert "cannot be tested with this model" in text
    assert facts["verdict"] in text
    assert facts["elements"]["mg"]["p_elsewhere"] is None
    assert {p.name for p in out.glob("*.png")} == {"attention.png", "tokens.png", "likeness.png"}
    with np.load(out / "atlas.npz", allow_pickle=False) as stored:
        assert stored["attention"].shape[-1] == 4
    assert "Is attention alike" in (out / "report.html").read_text()


def test_other_architectures_are_refused(payne_model, finished_grid, tmp_path, monkeypatch, capsys) -> None:
    path = bundle.save(payne_model, tmp_path / "m")
    text = refuse(monkeypatch, capsys, "attention", path, finished_grid.path, "--out", tmp_path / "out")
    assert "attention is what a TransformerPayne has; this model is of the architecture 'payne'" in text
