"""`make quick` tests what has changed, says what it left out, and leaves out nothing where it cannot tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import changed
from tests.changed import ALWAYS, ELSEWHERE, ROOT, Chosen, chosen, differing

TESTS = Chosen(None).all
FOLDERS = {str(Path(test).parent) for test in TESTS}


def test_where_nothing_has_changed_only_the_cheap_ones_about_the_whole_tree_are_left():
    assert chosen([], TESTS) == {*ALWAYS}


@pytest.mark.parametrize("folder", sorted(FOLDERS - {"tests"}))
def test_a_changed_file_is_tested_by_the_folder_that_mirrors_its_own(folder):
    here = {test for test in TESTS if str(Path(test).parent) == folder}
    for file in (f"{folder}/helper.py", f"nantui/{folder.removeprefix('tests/')}/deep/anything.py"):
        assert here <= chosen([file], TESTS) <= here | {*ALWAYS}


@pytest.mark.parametrize(
    ("file", "test"),
    [("nantui/run/layout.py", "tests/ui/test_data.py"),
     ("nantui/supervisor/notify/__main__.py", "tests/supervisor/test_notify.py"),
     ("tests/supervisor/stub_run.py", "tests/recovery/test_into.py"),
     ("nantui/commands/labels.py", "tests/docs/test_schemas.py"),
     ("docs/keys.md", "tests/docs/test_keys.py"), ("styles/nantui.tcss", "tests/ui/test_snapshots.py")],
)  # fmt: skip
def test_whoever_imports_a_changed_file_or_is_about_it_is_chosen(file, test):
    assert test in chosen([file], TESTS)


def test_a_test_file_alone_is_chosen_without_its_folder():
    one = "tests/ui/test_run_screen.py"
    assert chosen([one], TESTS) == {one, *ALWAYS}


@pytest.mark.parametrize(
    "file", ["tests/conftest.py", "tests/warm.py", "tests/data/endings.yaml", "pyproject.toml", "new/file.c"]
)
def test_nothing_is_left_out_where_a_change_may_concern_all(file):
    assert chosen([file], TESTS) == TESTS


def test_what_is_named_is_there():
    assert {*ALWAYS} <= TESTS
    assert all((ROOT / name).exists() for name in ELSEWHERE)
    assert {folder for folders in ELSEWHERE.values() for folder in folders} <= FOLDERS


def repository(place: Path) -> Path:
    (place / "tests" / "ui").mkdir(parents=True)
    for name in ("tests/ui/test_one.py", "tests/ui/test_other.py"):
        (place / name).write_text("def test_it():\n    assert True\n")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "all"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", place, *who, *words], check=True)
    return place


def test_changed_is_what_was_edited_removed_or_is_new_and_without_git_nobody_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(changed, "ROOT", tmp_path)
    assert differing() is None and Chosen(differing()).others == set()
    repository(tmp_path)
    assert differing() == set()
    (tmp_path / "tests/ui/test_one.py").write_text("\n")
    (tmp_path / "tests/ui/test_other.py").unlink()
    (tmp_path / "new.py").touch()
    assert differing() == {"tests/ui/test_one.py", "tests/ui/test_other.py", "new.py"}


def test_what_was_left_out_is_said_and_no_test_at_all_is_no_failure(tmp_path):
    repository(tmp_path)
    (tmp_path / "tests" / "changed.py").write_text((ROOT / "tests" / "changed.py").read_text())
    (tmp_path / ".git" / "info" / "exclude").write_text("tests/changed.py\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "tests.changed", "-p", "no:cacheprovider", "tests"]

    def said() -> str:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "no tests ran" in (words_of := said()) and "elsewhere: tests/ui\n" in words_of
    (tmp_path / "tests/ui/test_one.py").write_text("def test_it():\n    assert 1\n")
    assert "1 passed" in (words_of := said()) and "elsewhere: 1 files of tests/ui\n" in words_of
