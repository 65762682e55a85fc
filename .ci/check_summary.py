"""Check what the quick demo wrote: every stage ran on real spectra, and the report is one self-contained page."""

import json
import math
import re
import sys
from pathlib import Path

summary = json.loads(Path(sys.argv[1]).read_text())
report = Path(sys.argv[2]).read_text()

assert summary["grid"]["n_failed"] == 0, summary["grid"]
for name in ("payne", "transformer"):
    facts = summary["evaluation"][name]
    # A tiny run, but a spectrum predicted as its mean would be off by more than this.
    assert 0 < facts["mae"] < 0.05, (name, facts)
    assert facts["n_spectra"] >= 10, (name, facts)
fit = summary["fit"]
for name, entry in fit["labels"].items():
    assert all(math.isfinite(entry[key]) for key in ("value", "error", "truth")), (name, entry)
assert abs(fit["rv"] - fit["truth"]["rv"]) < 2.0, fit
assert set(summary["seconds"]) >= {"synthesis", "train payne", "train transformer", "fit"}, summary["seconds"]
assert report.count("data:image/png;base64,") >= 5
# Nothing is fetched from elsewhere. The figures are taken out first: base64 spells "http" by chance now and then.
text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", report)
assert "http" not in text.replace("http-equiv", "")
print("summary.json and report.html are as they should be")
