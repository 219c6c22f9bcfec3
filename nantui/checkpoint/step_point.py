"""Whether a step point is what was written, and may be loaded, which runs what its pickle says."""

from __future__ import annotations

from pathlib import Path

from nantui.checkpoint.scan import scan
from nantui.errors import UserError
from nantui.run.layout import RunLayout
from nantui.run.points import NAMES, StepPoint, is_whole, read_point


def why_unsound(layout: RunLayout, point: StepPoint | None) -> str:
    """Return why a point is not to be gone on from, "" where it is whole and clean; reads all of it."""
    if point is None or not is_whole(layout, point):
        return "not the file that its header describes"
    verdict = scan(layout.point(point.name), crc=True)
    why = ", ".join(finding.detail for finding in verdict.findings[:2])
    return "" if verdict.badge == "clean" else f"{verdict.badge} ({why})"


def refuse_unsound(layout: RunLayout, path: Path) -> None:
    """Raise UserError where `path` is a step point that is not sound.

    Other checkpoints are judged by who chooses them.
    """
    name = next((name for name in NAMES if path == layout.point(name)), None)
    if name is not None and (why := why_unsound(layout, read_point(layout, name))):
        raise UserError(f"{path}: {why}; choose another restore point")
