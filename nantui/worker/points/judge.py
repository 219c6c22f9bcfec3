"""A step point is judged before it is loaded, which runs what its pickle says."""

from __future__ import annotations

from pathlib import Path

from nantui.checkpoint.scan import scan
from nantui.errors import UserError
from nantui.run.layout import RunLayout
from nantui.run.points import NAMES, is_whole, read_point


def refuse_unsound(layout: RunLayout, path: Path) -> None:
    """Raise UserError where `path` is a step point that is not what was written, or not to be loaded.

    Other checkpoints are judged by who chooses them.
    """
    name = next((name for name in NAMES if path == layout.point(name)), None)
    if name is None:
        return
    point = read_point(layout, name)
    if point is None or not is_whole(layout, point):
        raise UserError(f"{path}: not the file that its header describes; choose another restore point")
    verdict = scan(path, crc=True)
    if verdict.badge != "clean":
        why = ", ".join(finding.detail for finding in verdict.findings[:2])
        raise UserError(f"{path}: {verdict.badge} ({why}); choose another restore point")
