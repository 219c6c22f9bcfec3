"""Every screen at three sizes, on recorded real runs, as text; at one size with the names of its colours.

A change that was meant: NANTUI_UPDATE_SNAPSHOTS=1 pytest tests/ui/test_snapshots.py, and look at what
changed.
"""

import os
import re
from pathlib import Path

import pytest

from devtools import gallery
from devtools.screen_svg import screen_text
from tests.ui.inks import screen_inks

KEPT = Path(__file__).parent / "snapshots"
SIZES = [gallery.parse_size(size) for size in gallery.SIZES]
COLOURED = (120, 40)


@pytest.mark.parametrize("scene", gallery.SCENES, ids=lambda scene: scene.name)
async def test_the_screen_looks_as_it_did(scene):
    with gallery.quiet_place():
        found = await gallery.in_sizes(scene, SIZES, None, lambda app: (screen_text(app), screen_inks(app)))
    for (columns, lines), (text, inks) in found.items():
        assert len(text.split("\n")) == lines
        name = f"{scene.name}-{columns}x{lines}"
        matches(KEPT / f"{name}.txt", re.sub(r"Ultralytics \d[\d.]*", "Ultralytics 8", text))
        if (columns, lines) == COLOURED:
            matches(KEPT / f"{name}.inks", inks)


def matches(path, seen):
    """Compare with what was kept, or keep it when asked to."""
    if os.environ.get("NANTUI_UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(seen + "\n")
    assert path.read_text() == seen + "\n", path.name
