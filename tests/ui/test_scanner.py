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


def test_a_restore_point_that_takes_long_to_find_is_asked_for_seldom(tmp_path):
    now, asked, files = [0.0], [], [tmp_path / f"epoch{number}.pt" for number in range(3)]

    class Slow(ByContent):
        def restore_point(self, run):
            asked.append(now[0])
            now[0] += 2.0
            return files[len(asked) - 1]

    scanner, found = Scanner(tmp_path, Slow(), lambda: now[0]), []
    for file, moment in zip(files, (0.0, 30.0, 43.0), strict=True):
        file.write_text("clean")
        now[0] = moment
        found.append([restore for *_, restore in scanner.look()][-1])
    assert asked == [0.0, 43.0] and found == [files[0], files[0], files[1]]
    assert not list(scanner.look()), "nothing has changed since"


def badges(weights, posted):
    shown = rows(tuple(list_checkpoints(weights)), *posted)
    return {row.checkpoint.name: row.badge for row in shown}
