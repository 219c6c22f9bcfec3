"""No key of the cockpit is left out of docs/keys.md, on whatever screen or panel it was added."""

import importlib
import pkgutil
from pathlib import Path

import nantui.ui
from nantui.ui.dialogs.help import keys_of_class

KEYS = Path(__file__).resolve().parents[2] / "docs" / "keys.md"
THE_SAME_EVERYWHERE = {"Up", "Down", "Left", "Right", "h", "l", "Enter", "Esc", "Tab", "Shift+Tab"}
"""Moving, choosing and leaving in a dialog: the page's first lines say it once for all."""


def with_bindings():
    """Yield every class of the cockpit that declares keys."""
    for module in pkgutil.walk_packages(nantui.ui.__path__, "nantui.ui."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and kind.__module__ == module.name and "BINDINGS" in vars(kind):
                yield kind


def test_every_key_stands_in_the_page():
    page = KEYS.read_text(encoding="utf-8")
    missing = [
        f"{kind.__name__}: {entry.keys} {entry.text}"
        for kind in with_bindings()
        for entry in keys_of_class(kind, "")
        if f"| {' '.join(f'`{key}`' for key in entry.keys.split())} | {entry.text} |" not in page
        and not set(entry.keys.split()) <= THE_SAME_EVERYWHERE
    ]
    assert missing == []


def test_classes_with_keys_are_found():
    assert {"RunScreen", "Listing", "CockpitApp"} <= {kind.__name__ for kind in with_bindings()}
