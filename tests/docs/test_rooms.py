"""Each package lists its files in reading order, and each file's first line says what it is for."""

import ast
import re
from pathlib import Path

import pytest

import nantui

ROOT = Path(nantui.__file__).parent
OLD_NAMES = {"training", "training/hook"}
"""No rooms: what the version before is called by (nantui/entry_points.py)."""
NO_PACKAGES = {"worker/script/hook"}
"""Put on a path of its own: `sitecustomize` has to be found by that very name."""
LIST = re.compile(r"^In reading order: ([\w/,\s]+)\.$", re.MULTILINE)


def rooms():
    for folder in sorted({path.parent for path in ROOT.rglob("*.py")} - {ROOT}):
        name = folder.relative_to(ROOT).as_posix()
        if name not in OLD_NAMES | NO_PACKAGES:
            yield name


def listed(room):
    text = (ROOT / room / "__init__.py").read_text(encoding="utf-8")
    found = LIST.search(text)
    assert found, f"nantui/{room}/__init__.py lists no files in reading order"
    return re.split(r",\s+", found[1])


def files_of(room):
    for path in (ROOT / room).iterdir():
        if path.is_dir() and (path / "__init__.py").is_file():
            yield f"{path.name}/"
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield path.stem


@pytest.mark.parametrize("room", [*rooms()])
def test_a_room_lists_each_of_its_files_once(room):
    assert sorted(listed(room)) == sorted(files_of(room)), f"nantui/{room}/__init__.py"


@pytest.mark.parametrize("room", [*rooms()])
def test_each_file_says_in_its_own_words_what_it_is_for(room):
    documents = [ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in (ROOT / room).glob("*.py")]
    assert all(documents)
    firsts = [document.splitlines()[0] for document in documents]
    assert len(set(firsts)) == len(firsts)


def test_old_names_are_nothing_but_old_names():
    for room in OLD_NAMES:
        for path in (ROOT / room).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "Kept for one release" in text and text.count("\n") <= 6, path
