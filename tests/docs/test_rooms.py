"""Each package's own docstring lists its files once, in reading order, with what each is for."""

import re
from pathlib import Path

import pytest

import nantui

ROOT = Path(nantui.__file__).parent
OLD_NAMES = {"supervise", "supervise/hosts", "training", "training/hook"}
"""No rooms: what the version before is called by (nantui/entry_points.py)."""
NO_PACKAGES = {"worker/script/hook"}
"""Put on a path of its own: `sitecustomize` has to be found by that very name."""
ROW = re.compile(r"^(\w+/?): (.+)$")


def rooms():
    for folder in sorted({path.parent for path in ROOT.rglob("*.py")} - {ROOT}):
        name = folder.relative_to(ROOT).as_posix()
        if name not in OLD_NAMES | NO_PACKAGES:
            yield name


def listed(room):
    text = (ROOT / room / "__init__.py").read_text(encoding="utf-8")
    rows = text.partition("Files, in reading order:\n\n")[2].partition('\n"""')[0].splitlines()
    found = [ROW.match(row) for row in rows]
    assert all(found), f"nantui/{room}/__init__.py: {rows[found.index(None)]!r} is no `name: what it is for`"
    return [(row[1], row[2]) for row in found]


def files_of(room):
    for path in (ROOT / room).iterdir():
        if path.is_dir() and (path / "__init__.py").is_file():
            yield f"{path.name}/"
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield path.stem


@pytest.mark.parametrize("room", [*rooms()])
def test_a_room_lists_each_of_its_files_once(room):
    rows = listed(room)
    assert sorted(name for name, _ in rows) == sorted(files_of(room)), f"nantui/{room}/__init__.py"
    assert all(not text.endswith("…") for _, text in rows)
    texts = [text for _, text in rows]
    assert len(set(texts)) == len(texts)


def test_old_names_are_nothing_but_old_names():
    for room in OLD_NAMES:
        for path in (ROOT / room).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "Kept for one release" in text and text.count("\n") <= 6, path
