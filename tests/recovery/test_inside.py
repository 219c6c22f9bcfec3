"""What a journal or a manifest names stays inside the run, and crosses no link."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nantui.errors import UserError
from nantui.recovery import __main__ as act
from nantui.recovery.transaction import MKDIR, MOVE, RMDIR, Step, do, move, pending, revert, settle, step_from
from nantui.recovery.undo import read_manifest, undo
from nantui.run.inside import inside, parts_of, refuse_links
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from tests.recovery import fakes

OUT = ("/etc/passwd", "../x", "a/../../x", "a/./b", "", "a//b", "..", ".", "weights/../../x", "a\0b", 3, None)


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine.txt").write_text("mine")
    return fakes.make_run(tmp_path / "run")


def outside(layout: RunLayout) -> dict[str, str]:
    top = layout.run.parent / "outside"
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


@pytest.mark.parametrize("path", OUT)
def test_a_path_that_leads_out_by_its_words_is_refused(layout: RunLayout, path: Any) -> None:
    with pytest.raises(UserError):
        parts_of(path)
    with pytest.raises(UserError):
        step_from({"kind": MOVE, "source": "args.yaml", "target": path})
    with pytest.raises(UserError):
        step_from({"kind": MOVE, "source": path, "target": "x"})


@pytest.mark.parametrize("source", ["{out}/mine.txt", "../outside/mine.txt"])
def test_a_pending_rollback_moves_nothing_out_of_the_run_or_into_it(layout: RunLayout, source: str) -> None:
    state = os.stat(layout.run.parent / "outside" / "mine.txt")
    source = source.format(out=layout.run.parent / "outside")
    step = {
        "kind": MOVE, "target": "stolen.txt", "source": source, "size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
    }  # fmt: skip
    Journal(layout.journal).append("rollback_begun", id="abc", steps=[step])
    before = outside(layout)
    with pytest.raises(UserError, match="no path inside the run"):
        settle(layout, by="me")
    assert outside(layout) == before and not (layout.run / "stolen.txt").exists()


@pytest.mark.parametrize("id", ["../../outside", "/tmp", "a/../../../outside"])
def test_the_id_of_a_transaction_is_no_way_out(layout: RunLayout, id: str) -> None:
    Journal(layout.journal).append("rollback_begun", id=id, steps=[])
    with pytest.raises(UserError, match="no path inside"):
        pending(layout)
    Journal(layout.journal).append("rollback_done", id=id)
    with pytest.raises(UserError, match="no path inside"):
        undo(layout, by="me")


@pytest.mark.parametrize("path", ["../outside/new.txt", "/etc/new", "nantui/spec.yaml"])
def test_a_manifest_gives_nothing_back_outside_nor_among_our_own_files(layout: RunLayout, path: str) -> None:
    home = layout.backups / "abc"
    home.mkdir(parents=True)
    (home / "manifest.json").write_text(json.dumps({"items": [{"path": path, "kind": "file"}]}))
    with pytest.raises(UserError):
        read_manifest(layout, "abc")


@pytest.mark.parametrize("document", ["[]", "{}", '{"items": 3}', '{"items": [3]}', '{"items": [{}]}', "{"])
def test_a_manifest_that_makes_no_sense_is_missing(layout: RunLayout, document: str) -> None:
    (layout.backups / "abc").mkdir(parents=True)
    (layout.backups / "abc" / "manifest.json").write_text(document)
    assert read_manifest(layout, "abc") is None


@pytest.mark.parametrize("folder", ["plots", "deep/plots"])
def test_no_step_crosses_a_link(layout: RunLayout, folder: str) -> None:
    link = layout.run / "link"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(layout.run.parent / "outside")
    before = outside(layout)
    steal = move(layout.run, "labels.jpg", "link/labels.jpg")
    state = os.stat(layout.run.parent / "outside" / "mine.txt")
    take = Step(MOVE, "taken.txt", "link/mine.txt", state.st_size, state.st_mtime_ns)
    for step in (steal, take, Step(MKDIR, f"link/{folder}"), Step(RMDIR, "link/empty")):
        for way in (do, revert):
            try:
                way(layout.run, step)
            except OSError as error:
                assert "/proc/self" not in str(error), "it says which path of the run"
    assert outside(layout) == before and (layout.run / "labels.jpg").exists()


def test_a_link_that_is_put_there_in_between_is_not_followed(layout: RunLayout) -> None:
    with inside(layout.run, "plots/curve.png") as place:
        os.rename(layout.run / "plots", layout.run / "old")
        (layout.run / "plots").symlink_to(layout.run.parent / "outside")
        place.write_bytes(b"new")
    assert (layout.run / "old" / "curve.png").read_bytes() == b"new"
    assert outside(layout) == {"mine.txt": "mine"}


def test_weights_may_be_its_owners_link_where_the_run_was_made_and_nowhere_else(
    layout: RunLayout, tmp_path: Path
) -> None:
    os.rename(layout.weights, tmp_path / "large-disk")
    layout.weights.symlink_to(tmp_path / "large-disk")
    do(layout.run, move(layout.run, "weights/epoch0.pt", "weights/moved.pt"))
    assert (tmp_path / "large-disk" / "moved.pt").exists()
    copy = RunLayout(tmp_path / "copy")
    copy.home.mkdir(parents=True)
    copy.weights.symlink_to(tmp_path / "large-disk")
    with pytest.raises(OSError):
        move(copy.run, "weights/moved.pt", "weights/again.pt")
    with pytest.raises(UserError, match="is a link"):
        refuse_links(copy)


@pytest.mark.parametrize("name", ["journal.jsonl", "spec.yaml", "backups", "attempts", "lock", "phases"])
def test_who_acts_refuses_links_among_our_own_files(
    layout: RunLayout, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = layout.home / name
    if place.exists():
        place.unlink()
    place.symlink_to(tmp_path / "outside")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"action": "repair", "run": str(layout.run)}))
    assert act.main([str(request)]) == 3
    assert "is a link" in capsys.readouterr().out


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_journal_of_another_user_moves_no_file(layout: RunLayout) -> None:
    Journal(layout.journal).append("rollback_begun", id="abc", steps=[{"kind": MKDIR, "target": "made"}])
    os.chown(layout.journal, 12345, 12345)
    with pytest.raises(UserError, match="another user"):
        settle(layout, by="me")
    with pytest.raises(UserError, match="another user"):
        undo(layout, by="me")
    assert not (layout.run / "made").exists()
