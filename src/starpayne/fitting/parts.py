"""The rows of a survey on disk, part by part, so that a stop loses little and nothing is fitted twice.

Beside the table TABLE stands the folder TABLE.parts until the last star is fitted: ``survey.json`` says of which survey
it is, ``part-000000192.json`` holds some rows from row 192 on, as ``FitResult.to_dict`` gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any

from starpayne.errors import OutputExistsError, SpectrumError
from starpayne.files import read_json, remove, remove_output, write_json
from starpayne.fitting.table import write_table

SIGN = "survey.json"
PART = re.compile(r"part-(\d{9,})\.json")


def stopped_before(table: Path) -> bool:
    """Return whether the table, if it is there, may be that of a survey that was stopped."""
    return (_folder(table) / SIGN).is_file()


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of what differs; of a mapping in both, the names in it."""
    names = []
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += _changed(a, b)
        elif a != b:
            names.append(key)
    return names


def _folder(table: Path) -> Path:
    return table.with_name(table.name + ".parts")


@dataclass(frozen=True)
class Parts:
    """The finished rows of one survey.

    Args:
        table: where the rows end up.
        folder: where they are until then.
        stars: of the whole survey.
    """

    table: Path
    folder: Path
    stars: int

    @classmethod
    def open(cls, table: Path, identity: Mapping[str, Any], stars: int, overwrite: bool = False) -> Parts:
        """Begin a survey, or go on with the one that was stopped.

        Args:
            table: of the results.
            identity: what must be the same for both to be one survey; JSON data.
            stars: of the whole survey.
            overwrite: begin anew, and replace whatever is in the way.

        Raises:
            OutputExistsError: the table is there, or the parts are of another survey.
        """
        folder = _folder(table)
        stated = loads(dumps(dict(identity)))
        if overwrite:
            remove_output(folder, SIGN)
        if folder.exists():
            found = read_json(folder / SIGN, OutputExistsError)
            changed = _changed(found, stated)
            if changed:
                raise OutputExistsError(
                    f"{folder} holds parts of another survey ({', '.join(changed)} not the same); give another path, "
                    "or --overwrite to begin anew"
                )
        else:
            if table.exists() and not overwrite:
                raise OutputExistsError(f"{table} exists; give another path, or --overwrite to replace it")
            folder.mkdir(parents=True)
            write_json(folder / SIGN, stated)
        return cls(table, folder, stars)

    def write(self, first: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep neighbouring finished rows, from row ``first`` on."""
        write_json(self.folder / f"part-{first:09d}.json", {"rows": list(rows)})

    def parts(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Return the first row of each part, and its rows, in their order."""
        found = (PART.fullmatch(path.name) for path in self.folder.iterdir())
        for first in sorted(int(match[1]) for match in found if match):
            yield first, read_json(self.folder / f"part-{first:09d}.json", SpectrumError)["rows"]

    def missing(self) -> list[range]:
        """Return the rows that are not finished, in runs of neighbours."""
        gaps, reached = [], 0
        for first, rows in self.parts():
            if first > reached:
                gaps.append(range(reached, first))
            reached = first + len(rows)
        return [*gaps, range(reached, self.stars)] if reached < self.stars else gaps

    def finish(self, json: Path | None = None) -> bool:
        """Write the table of what is finished; return whether that is all.

        Parts are removed if it is, and if there are none: then there is nothing to go on with.

        Args:
            json: file to write the rows to as well, in full.
        """
        missing = sum(len(gap) for gap in self.missing())
        if missing < self.stars:
            write_table(self.table, (rows for _, rows in self.parts()))
            if json is not None:
                write_json(json, [row for _, rows in self.parts() for row in rows])
        if missing in (0, self.stars):
            remove(self.folder)
        return not missing
