"""A badge belongs to a file as it was, not to a name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nantui.ui.model.checkpoint_rows import rows
from nantui.ui.model.run_reader import list_checkpoints
from nantui.ui.watchers import Scanner


@dataclass(frozen=True)
class Judged:
    path: Path
    badge: str
    usable: bool = False
    repairable: bool = False
    resumable: bool = False
    work_epoch: int = 1
    fitness: float | None = None
    findings: tuple = ()


class ByContent:
    """Judges a file by the word in it."""

    def verdicts(self, weights):
        for file in list_checkpoints(weights):
            yield Judged(file.path, file.path.read_text())

    def restore_point(self, run):
        return None


def test_a_file_rewritten_under_the_same_name_loses_its_old_badge(tmp_path):
    last, other = tmp_path / "last.pt", tmp_path / "zzz.pt"
    last.write_text("corrupt")
    other.write_text("clean")
    scanner = Scanner(tmp_path, ByContent())
    *_, posted = scanner.look()
    assert badges(tmp_path, posted) == {"last.pt": "corrupt", "zzz.pt": "clean"}
    last.write_text("clean")
    os.utime(last, (5, 5))
    assert badges(tmp_path, posted)["last.pt"] == "", "the new file must not wear the old one's badge"
    *_, posted = scanner.look()
    assert badges(tmp_path, posted) == {"last.pt": "clean", "zzz.pt": "clean"}


def badges(weights, posted):
    shown = rows(tuple(list_checkpoints(weights)), *posted)
    return {row.checkpoint.name: row.badge for row in shown}
