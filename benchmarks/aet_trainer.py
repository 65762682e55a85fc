"""Train the TransformerPayne of astro-emulators-toolkit for a while; ``against_aet.py`` starts this in its environment.

Uses that toolkit's own flux preset but for the sizes: SOAP at 3e-3 with a cosine after a tenth of the steps of warm-up,
weight decay 1e-5, mean squared error on the flux, its random wavelengths, labels scaled to [0, 1], and the encoding in
float64 as its README asks. Short runs over some batch sizes, judged by the validation spectra, choose one for the long
run. A run's steps come from its speed measured just before, so that its cosine ends at the time limit; the long run is
repeated, at most twice, where it missed the limit by a fifth. Compilation is not counted.
"""

from __future__ import annotations

# AET has an environment of its own.
# pyright: reportMissingImports=false
import argparse
import contextlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ["JAX_ENABLE_X64"] = "1"

import numpy as np
from astro_emulators_toolkit import Emulator
from astro_emulators_toolkit.data import TreeArrayDataset
from astro_emulators_toolkit.presets import transformer_payne_flux
from astro_emulators_toolkit.training.callbacks import Callback
from yardstick import speeds

BATCHES = ((64, 256), (64, 128), (32, 128))
"""Spectra × wavelengths of a step."""


class Enough(Exception):
    """Raised to leave a run whose speed is known."""


class Clock(Callback):
    """Notes when steps end; the first, which waits for the compiler, starts the clock."""

    def __init__(self, limit: float = np.inf) -> None:
        self.limit, self.times, self.steps, self.processor = limit, [], [], []

    def on_train_batch_end(self, step: int, logs: dict) -> None:
        self.times.append(time.perf_counter())
        self.processor.append(time.process_time())
        self.steps.append(step)
        if self.times[-1] - self.times[0] > self.limit:
            raise Enough

    @property
    def rate(self) -> float:
        return (self.steps[-1] - self.steps[0]) / max(self.times[-1] - self.times[0], 1e-9)

    @property
    def processor_seconds(self) -> float:
        """Processor time of a step."""
        return (self.processor[-1] - self.processor[0]) / max(self.steps[-1] - self.steps[0], 1)


class Rival:
    """The arrays, and how to train on them."""

    def __init__(self, folder: Path, size: dict[str, int]) -> None:
        self.folder, self.size = folder, size
        arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
        self.wavelength = arrays["wavelength"].astype(np.float64)
        low, high = arrays["low"], arrays["high"]
        self.labels = {
            part: ((arrays[f"{part}_labels"] - low) / (high - low)).astype(np.float32)
            for part in ("train", "validation", "test")
        }
        self.flux = {part: arrays[f"{part}_flux"].astype(np.float32) for part in ("train", "validation")}

    def fit(self, batch: tuple[int, int], steps: int, clock: Clock) -> Emulator:
        spectra, wavelengths = batch
        cfg = transformer_payne_flux(workdir=str(self.folder / "run"), profile="cpu_recommended")
        sizes = {
            "dim": self.size["width"], "no_layers": self.size["depth"], "no_tokens": self.size["tokens"],
            "dim_head": self.size["head_width"], "dim_ff_multiplier": 4,
        }  # fmt: skip
        cfg = cfg.with_updates(
            model=replace(cfg.model, params={**cfg.model.params, **sizes}),
            optim=replace(cfg.optim, warmup_steps=max(1, steps // 10)),
            training=replace(
                cfg.training, batch_size=spectra, num_steps=steps, logging_interval_steps=5,
                evaluation_interval_steps=0, checkpoint_interval_steps=0, max_saved_checkpoints=0,
            ),
        )  # fmt: skip
        emulator = Emulator.from_config(cfg)
        some = np.linspace(0, len(self.wavelength) - 1, wavelengths).astype(int)
        transform = emulator.make_device_batch_transform(
            mode="flux", wavelength_grid=self.wavelength, eval_wavelength_grid=self.wavelength[some],
            n_wavelength=wavelengths,
        )  # fmt: skip
        data = TreeArrayDataset(x={"parameters": self.labels["train"]}, y={"flux": self.flux["train"]})
        emulator.fit(data, device_batch_transform=transform, callbacks=[clock])
        return emulator

    def rate(self, batch: tuple[int, int], seconds: float) -> float:
        """Return steps per second, measured for so long."""
        clock = Clock(seconds)
        with contextlib.suppress(Enough):
            self.fit(batch, 10**6, clock)
        return clock.rate

    def train(self, batch: tuple[int, int], seconds: float, tries: int = 1) -> tuple[Emulator, dict[str, float]]:
        """Train for so many seconds, after measuring the speed; again if the speed then was another."""
        rate = self.rate(batch, min(10.0, seconds / 5))
        for _ in range(tries):
            steps = max(20, int(rate * seconds))
            clock = Clock()
            emulator = self.fit(batch, steps, clock)
            rate = clock.rate
            if abs(steps / rate - seconds) < 0.2 * seconds:
                break
        return emulator, {
            "steps": steps, "seconds": steps / rate, "steps_per_second": rate,
            "processor_seconds_per_step": clock.processor_seconds,
        }  # fmt: skip

    def predict(self, emulator: Emulator, part: str) -> np.ndarray:
        predicted = []
        for labels in np.array_split(self.labels[part], -(-len(self.labels[part]) // 10)):
            wavelengths = np.broadcast_to(self.wavelength, (len(labels), len(self.wavelength)))
            found = emulator.predict({"parameters": labels, "wavelengths": wavelengths})["flux"]
            predicted.append(np.asarray(found).reshape(wavelengths.shape))
        return np.concatenate(predicted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with the arrays; predictions and facts are written here")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--trial-seconds", type=float, required=True, help="for each batch size that is tried")
    for name in ("width", "depth", "tokens", "head-width"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    size = {name: getattr(given, name) for name in ("width", "depth", "tokens", "head_width")}
    rival = Rival(given.folder, size)
    trials = {}
    for batch in BATCHES:
        emulator, facts = rival.train(batch, given.trial_seconds)
        error = float(np.mean(np.abs(rival.predict(emulator, "validation") - rival.flux["validation"])))
        trials[batch] = {**facts, "validation_mae": error}
        print("aet", batch, trials[batch], flush=True)
    best = min(trials, key=lambda batch: trials[batch]["validation_mae"])
    before = speeds()[1]
    emulator, facts = rival.train(best, given.seconds, tries=3)
    after = speeds()[1]
    np.save(given.folder / "predicted.npy", rival.predict(emulator, "test"))
    facts |= {
        "spectra": best[0], "wavelengths": best[1], "yardstick_of_processor_time": max(before, after),
        "trials": {f"{s}x{w}": trial for (s, w), trial in trials.items()},
    }  # fmt: skip
    (given.folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
