"""Figures and the report: labelled, self-contained, safe against markup in names."""

from __future__ import annotations

import numpy as np
import pytest

from starpayne import plots
from starpayne.evaluation import evaluate
from starpayne.report import Report
from starpayne.training import LearningCurve


def test_every_axis_of_the_residual_figures_is_labelled(payne_model, finished_grid) -> None:
    result = evaluate(payne_model, finished_grid)
    for figure in (plots.residuals_by_wavelength({"payne": result}), plots.residuals_by_label({"payne": result})):
        shown = [axis for axis in figure.axes if axis.get_visible()]
        assert shown[-1].get_xlabel()
        assert all(axis.get_ylabel() for axis in shown[:1])
    assert plots.residuals_by_wavelength({"payne": result}).axes[-1].get_xlabel() == "wavelength in air (Å)"
    labels = [axis.get_xlabel() for axis in plots.residuals_by_label({"payne": result}).axes if axis.get_visible()]
    assert labels[0].endswith("(K)")
    assert labels[4] == "[Mg/Fe] (dex)"


def test_the_worst_spectrum_is_drawn_with_its_residual(payne_model, finished_grid) -> None:
    result = evaluate(payne_model, finished_grid)
    worst = int(np.argmax(result.per_spectrum))
    residual_axis = plots.examples(result).axes[3]
    assert np.array_equal(residual_axis.lines[0].get_ydata(), result.residual[worst])


def test_runs_of_masked_pixels_are_found() -> None:
    wavelength = np.arange(5000.0, 5008.0)
    used = np.array([0, 1, 1, 0, 0, 1, 1, 0], bool)
    assert plots.masked_ranges(wavelength, used) == [(5000, 5000), (5003, 5004), (5007, 5007)]


def test_training_curves_show_every_emulator(payne_model) -> None:
    figure = plots.training_curves({"payne": payne_model.training["history"]})
    assert len(figure.axes[0].lines[0].get_xdata()) == 180 // 60


def test_the_learning_curve_shows_points_law_base_and_goal() -> None:
    curve = LearningCurve.through((10, 40), [0.02, 0.01], before=0.03)
    (axis,) = plots.learning_curve(curve, goal=0.005).axes
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines) == ["fine-tuned", "base model, not fine-tuned", "MAE ∝ $N^{-0.50}$", "goal"]
    np.testing.assert_array_equal(lines["fine-tuned"].get_xydata(), [[10, 0.02], [40, 0.01]])
    assert lines["MAE ∝ $N^{-0.50}$"].get_ydata()[-1] == pytest.approx(0.01 / 5**0.5)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("spectra of the new grid", "MAE of normalised flux")
    without = plots.learning_curve(LearningCurve.through((10,), [0.02], before=0.03)).axes[0]
    assert [line.get_label() for line in without.lines] == ["fine-tuned", "base model, not fine-tuned"]


def test_the_report_is_one_page_that_loads_nothing(tmp_path, payne_model, finished_grid) -> None:
    report = Report("A <b>title</b>", "lead")
    report.heading("Numbers")
    report.table(["a", "b"], [["<script>", 1.5]])
    report.figure(plots.residuals_by_label({"payne": evaluate(payne_model, finished_grid)}), 'a "caption"')
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
