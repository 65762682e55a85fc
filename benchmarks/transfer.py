"""Fine-tuning against training from scratch: the error on another grid's test spectra, for growing numbers of spectra.

``python benchmarks/transfer.py run NAME --base MODEL --grid GRID [--old-grid GRID] [--sizes 10,100] [--scratch 1000]
[--moves all,lora] [--pick representative] [--hold solar-scaled] [--convert-medium] [--scratch-steps 3000]
--folder FOLDER`` adds what is not done yet to ``FOLDER/transfer.json``, one entry at a time; run again after a stop, it
goes on.

``python benchmarks/transfer.py report --folder FOLDER`` writes ``results/transfer.json`` and the figure
``docs/images/transfer.png``.

The grids: ``starpayne import mgb_reference``, and ``starpayne synthesize`` of the shipped designs ``mgb_turbospectrum``
and ``mgb_fixed`` and of ``benchmarks/red_turbospectrum.toml``; or few spectra of a design (``starpayne synthesize
DESIGN --few 10``), with ``--test-grid`` for the test spectra of another. From scratch, a network has the
recipe of the base model with ``--scratch-steps`` updates, and the validation spectra of the grid's split besides the N
it is trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from yardstick import record

from starpayne import bundle
from starpayne.emulators import adapted
from starpayne.evaluation import evaluate, forgotten
from starpayne.files import write_json
from starpayne.grid import Grid
from starpayne.labels import solar_scaled
from starpayne.training import FineTuning, Recipe, TrainingData, few_spectra, finetune, train
from starpayne.training.transfer import PICKS
from starpayne.training.transfer.data import target_of

FIGURE = Path(__file__).parent.parent / "docs" / "images" / "transfer.png"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--old-grid", type=Path)
    parser.add_argument("--test-grid", type=Path)
    parser.add_argument("--sizes", type=_numbers, default=[])
    parser.add_argument("--scratch", type=_numbers, default=[])
    parser.add_argument("--scratch-steps", type=int, default=3000)
    parser.add_argument("--moves", default="all")
    parser.add_argument("--rank", type=int, default=3)
    parser.add_argument("--pick", choices=PICKS, default="first")
    parser.add_argument("--hold", default="")
    parser.add_argument("--convert-medium", action="store_true")
    options = parser.parse_args()
    if options.what == "run":
        run(options)
    else:
        report(options.folder)


def run(options: argparse.Namespace) -> None:
    path = options.folder / "transfer.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    mine = done.setdefault(options.name, {"finetuned": {}, "scratch": {}})
    base, grid = bundle.load(options.base), Grid.open(options.grid)
    old = Grid.open(options.old_grid) if options.old_grid else None
    tested = Grid.open(options.test_grid) if options.test_grid else grid
    hold = solar_scaled(base.emulator.space, grid.space) if options.hold else {}

    def keep() -> None:
        # Another run may have added to the file meanwhile.
        current = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, {**current, options.name: mine})

    if "base" not in mine:
        data = few_spectra(base, grid, hold=hold, convert=options.convert_medium)
        start = adapted(base.emulator, target_of(base, data, FineTuning().recipe(base, len(data.labels))))
        before = evaluate(bundle.Model(start), tested).mae
        mine["base"] = {"validation": dict(base.validation), "mae_on_new_grid": before,
                        "architecture": base.emulator.architecture}  # fmt: skip
        if old is not None:
            mine["base"]["test_mae_on_own_grid"] = evaluate(base, old).mae
        print(options.name, mine["base"], flush=True)
        keep()
    for moves in options.moves.split(","):
        for n in options.sizes:
            kind = "representative" if options.test_grid else options.pick
            key = f"{moves} {n}" if kind == "first" else f"{moves}-{kind} {n}"
            if key in mine["finetuned"]:
                continue
            clock = time.monotonic()
            data = few_spectra(base, grid, n, hold=hold, convert=options.convert_medium, pick=options.pick)
            tuned = finetune(base, data, FineTuning(moves=moves, rank=options.rank))  # pyright: ignore[reportArgumentType]
            facts = tuned.model.training["finetuning"]
            mine["finetuned"][key] = {
                "test_mae": evaluate(tuned.model, tested).mae,
                "held_out_mae": tuned.model.validation["mae"],
                **{name: facts[name] for name in ("best_step", "helped", "folds", "noise") if name in facts},
                "weights_stored": facts["weights_stored"],
                "weights_in_all": facts["weights_in_all"],
                "seconds": round(time.monotonic() - clock, 1),
                **({"old_grid": dict(forgotten(base, tuned.model, old))} if old is not None else {}),
            }
            print(options.name, key, mine["finetuned"][key], flush=True)
            keep()
    recipe = Recipe.from_dict(base.training["identity"]["recipe"])
    recipe = recipe.replace(steps=options.scratch_steps, validate_every=max(1, options.scratch_steps // 12))
    for n in options.scratch:
        if str(n) in mine["scratch"]:
            continue
        data = TrainingData.from_grid(grid, n, recipe.channels, name=grid.path.name)
        model = train(data, recipe, options.folder / f"{options.name}-scratch-{n}.model")
        mine["scratch"][str(n)] = {
            "test_mae": evaluate(model, grid).mae, "steps": recipe.steps,
            "seconds": round(model.training["seconds"], 1),
        }  # fmt: skip
        print(options.name, "scratch", n, mine["scratch"][str(n)], flush=True)
        keep()


def report(folder: Path) -> None:
    """Write the table and the figure, and say what the figures of merit are."""
    from starpayne.plots import COLOURS, GREY, new_figure

    done = json.loads((folder / "transfer.json").read_text())
    panels = [name for name, facts in done.items() if facts["finetuned"]]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, figsize=(4.2 * columns, 3.4 * rows))
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, panels, strict=False):
        facts = done[name]
        styles = {"correction-representative": ("*-", COLOURS[5]), "correction": ("P-", COLOURS[3]),
                  "all": ("o-", COLOURS[0]), "lora": ("^:", COLOURS[2])}  # fmt: skip
        for moves, (style, colour) in styles.items():
            n, mae = _series({k.split()[1]: v for k, v in facts["finetuned"].items() if k.split()[0] == moves})
            if len(n):
                label = {"all": "fine-tuned", "lora": "fine-tuned, low rank", "correction": "corrected",
                         "correction-representative": "corrected, representative stars"}[moves]  # fmt: skip
                axis.loglog(n, mae, style, color=colour, ms=4, lw=1.2, label=label)
        n, mae = _series(facts["scratch"])
        if len(n):
            axis.loglog(n, mae, "s--", color=COLOURS[1], ms=4, lw=1.2, label="from scratch")
        axis.axhline(facts["base"]["mae_on_new_grid"], color=GREY, ls="-.", lw=1, label="base, not fine-tuned")
        axis.axhline(facts["base"]["validation"]["mae"], color="black", ls=":", lw=1, label="base on its own grid")
        axis.set_title(name, fontsize=9, loc="left")
        axis.set(xlabel="spectra of the new grid", ylabel="test MAE of normalised flux")
        axis.legend(fontsize=6.5)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE)
    for name in panels:
        done[name]["saved"] = _saved(done[name])
        print(name, "spectra from scratch for the error of fine-tuning:", done[name]["saved"])
    record("transfer", done)


def _saved(facts: dict[str, Any]) -> dict[str, Any]:
    """Return, for each n fine-tuned, how many spectra a network from scratch needs for the same error.

    Interpolated in the logarithms; a text where the curve from scratch does not reach so far.
    """
    n, mae = _series(facts["scratch"])
    found: dict[str, Any] = {}
    for key, entry in facts["finetuned"].items():
        if not len(n):
            break
        size, error = key, entry["test_mae"]
        if error < mae[-1]:
            found[str(size)] = f"> {n[-1]}"
        elif error > mae[0]:
            found[str(size)] = f"< {n[0]}"
        else:
            found[str(size)] = round(float(np.exp(np.interp(-np.log(error), -np.log(mae), np.log(n)))))
    return found


def _series(entries: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    pairs = sorted((int(n), facts["test_mae"]) for n, facts in entries.items())
    return np.array([n for n, _ in pairs], int), np.array([mae for _, mae in pairs])


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


if __name__ == "__main__":
    main()
