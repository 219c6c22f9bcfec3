"""One step of a transaction: it never replaces a file, never shares one, and may be done twice."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nantui.recovery import transaction as steps


def test_moving_to_another_disk_copies_first_and_survives_a_crash_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"content")
    step = steps.move(tmp_path, "a", "far/b")
    real = steps.rename_without_replacing

    def other_disk(source: Path, target: Path) -> None:
        if source.name == "a":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(steps, "rename_without_replacing", other_disk)
    steps.do(tmp_path, step)
    assert not (tmp_path / "a").exists() and (tmp_path / "far/b").read_bytes() == b"content"
    assert steps.state_of(tmp_path, step) == steps.DONE
    steps.copy_durably(tmp_path / "far/b", tmp_path / "a")  # as a crash before the last unlink leaves it
    assert steps.state_of(tmp_path, step) == steps.DONE
    steps.do(tmp_path, step)
    assert not (tmp_path / "a").exists()


def test_a_rename_never_replaces(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        steps.rename_without_replacing(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "a" and (tmp_path / "b").read_text() == "b"


def test_a_copy_shares_no_inode_with_its_source(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    steps.copy_durably(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").write_bytes(b"overwritten in place, as the next save does")
    assert (tmp_path / "b").read_bytes() == b"before"
