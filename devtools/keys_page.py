"""docs/keys.md, made from the bindings themselves; a test keeps the file and the bindings together.

python -m devtools.keys_page > docs/keys.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nantui.ui.dialogs.base import Dialog
from nantui.ui.dialogs.choose import PresetsDialog
from nantui.ui.dialogs.confirm import ConfirmDialog
from nantui.ui.dialogs.help import Entry, keys_of_class
from nantui.ui.dialogs.recover import RecoverDialog
from nantui.ui.screens.base import BaseScreen
from nantui.ui.screens.charts import ZoomScreen
from nantui.ui.screens.compare import CompareScreen
from nantui.ui.screens.config import ConfigScreen
from nantui.ui.screens.diagnosis import DiagnosisScreen
from nantui.ui.screens.fleet import FleetScreen
from nantui.ui.screens.labels import LabelsScreen
from nantui.ui.screens.log import LogScreen
from nantui.ui.screens.machine import MachineScreen
from nantui.ui.screens.run import RunScreen
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.list_view import Listing

SECTIONS: tuple[tuple[str, type[Any]], ...] = (
    ("A run", RunScreen),
    ("Lists", Listing),
    ("All runs (`f`)", FleetScreen),
    ("One chart (`z`)", ZoomScreen),
    ("Charts (`1`)", ChartWall),
    ("The machine (`M`)", MachineScreen),
    ("Settings (`c`)", ConfigScreen),
    ("Output (`o`)", LogScreen),
    ("Diagnosis (`d`)", DiagnosisScreen),
    ("Data labels (`D`)", LabelsScreen),
    ("Compare (`v`)", CompareScreen),
    ("Recover and roll back (`R`, `r`)", RecoverDialog),
    ("Questions", ConfirmDialog),
    ("Presets (`p`)", PresetsDialog),
)


def everywhere() -> list[Entry]:
    """Return the keys that work on every screen."""
    from nantui.ui.app import CockpitApp

    return keys_of_class(CockpitApp, "Everywhere")


def lines() -> Iterator[str]:
    """Yield the document."""
    yield "# Keys"
    yield ""
    yield "Made by `python -m devtools.keys_page` from the bindings. `?` shows those of the screen"
    yield "that is open, with the reason where one cannot be used now. vi keys and arrows do the same; `Esc`"
    yield "always goes back; `^` is Ctrl."
    yield from _table("Everywhere", everywhere())
    known = {(entry.keys, entry.text) for entry in everywhere()}
    shared = {(entry.keys, entry.text) for kind in (BaseScreen, Dialog) for entry in keys_of_class(kind, "")}
    for title, kind in SECTIONS:
        own = [entry for entry in keys_of_class(kind, "") if (entry.keys, entry.text) not in known | shared]
        yield from _table(title, own)
    yield from _table("Between panels and screens", keys_of_class(BaseScreen, ""))


def _table(title: str, entries: list[Entry]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    yield "| keys | what it does |"
    yield "| --- | --- |"
    for entry in entries:
        yield f"| {' '.join(f'`{key}`' for key in entry.keys.split())} | {entry.text} |"


if __name__ == "__main__":
    print("\n".join(lines()))
