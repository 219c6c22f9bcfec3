"""A process starts another by a name of nantui/entry_points.py, and each of those names starts something."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nantui
from nantui import entry_points

ROOT = Path(nantui.__file__).parent
BY_HAND = {"nantui.cli"}
"""Started by people and by the Makefile."""
NEW = {entry_points.QUEUE, entry_points.GPU_MARKS, entry_points.WAITING}
"""No version before knew them."""
NAMES = {value for name, value in vars(entry_points).items() if name.isupper() and isinstance(value, str)}


def source_of(name):
    """Return what `python -m name` runs."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
        assert spec is not None, name
    return Path(spec.origin)


def test_each_name_starts_something():
    for name in NAMES | set(entry_points.BEFORE):
        assert '__name__ == "__main__"' in source_of(name).read_text(encoding="utf-8"), name


def test_nothing_else_can_be_started():
    known = {source_of(name) for name in NAMES | BY_HAND | set(entry_points.BEFORE)}
    guarded = {path for path in ROOT.rglob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")}
    assert guarded - {ROOT / "__main__.py"} == known


def test_nobody_writes_such_a_name_by_hand():
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""["']-m["'],\s*f?["']nantui\.""", text), path
        assert path.name == "entry_points.py" or not [name for name in NAMES if f'"{name}"' in text], path


def test_an_old_name_starts_what_it_was_renamed_to():
    assert set(entry_points.BEFORE.values()) == NAMES - NEW
    for old, new in entry_points.BEFORE.items():
        assert source_of(old) == source_of(new)


@pytest.mark.parametrize("old", ["nantui.supervise.hosts.agent", "nantui.recovery.act"])
def test_an_old_name_runs_what_it_was_renamed_to(old):
    """In a package that is gone, and in one that is there; without a request each says what it lacks."""
    told = [
        subprocess.run([sys.executable, "-m", name], cwd="/", capture_output=True)
        for name in (old, entry_points.BEFORE[old])
    ]
    assert (told[0].returncode, told[0].stdout, told[0].stderr) == (2, told[1].stdout, told[1].stderr)
