"""Every screen at three sizes, on recorded real runs, as text.

A change that was meant: NANTUI_UPDATE_SNAPSHOTS=1 pytest tests/ui/test_snapshots.py, and look at what
changed.
"""

import os
import re
from pathlib import Path

import pytest

from nantui.ui import gallery
from nantui.ui.picture import screen_text

KEPT = Path(__file__).parent / "snapshots"
SIZES = [gallery.parse_size(size) for size in gallery.SIZES]


@pytest.mark.parametrize("scene", gallery.SCENES, ids=lambda scene: scene.name)
async def test_the_screen_looks_as_it_did(scene):
    with gallery.quiet_place():
        found = await gallery.in_sizes(scene, SIZES, None, screen_text)
    for (columns, lines), text in found.items():
        text = re.sub(r"Ultralytics \d[\d.]*", "Ultralytics 8", text)
        path = KEPT / f"{scene.name}-{columns}x{lines}.txt"
        if os.environ.get("NANTUI_UPDATE_SNAPSHOTS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text + "\n")
        assert path.read_text() == text + "\n", path.name
        assert len(text.split("\n")) == lines
