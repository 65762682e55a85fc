"""Fail if a test that must run was skipped: synthesis tests always (both engines), data tests where the data are."""

import os
import sys
import xml.etree.ElementTree as ElementTree

# The suite's conftest writes these words into the reason of every skip it makes.
FORBIDDEN = ["synthesis extra", "Turbospectrum is not built"]
FORBIDDEN += ["STARPAYNE_DATA"] if "STARPAYNE_DATA" in os.environ else []

cases = list(ElementTree.parse(sys.argv[1]).iter("testcase"))
skipped = [(case, case.find("skipped")) for case in cases if case.find("skipped") is not None]
failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
wrong = [
    f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}"
    for case, skip in skipped
    if any(word in f"{skip.get('message')} {skip.text}" for word in FORBIDDEN)
]
for line in wrong:
    print(f"must not be skipped: {line}")
print(f"{len(cases) - len(skipped) - len(failed)} passed, {len(failed)} failed, {len(skipped)} skipped")
sys.exit(1 if wrong or failed or not cases else 0)
