"""Every file, function and class that the codebase guide and CONTRIBUTING name is there."""

import ast
import re
from pathlib import Path

import pytest

import nantui

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "architecture.md"
PAGES = [GUIDE, ROOT / "CONTRIBUTING.md"]
CODE = re.compile(r"`([^`\n]+)`")
PLACE = re.compile(r"([\w/]+\.py)(?::(\w+))?")
FOLDER = re.compile(r"(?:[a-z_]+/)+")
PLACEHOLDER = {"NAME"}


def text_of(page):
    """Return a page without its drawings and commands."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def named(page):
    """Yield (file, name or None) for each `file.py` and `file.py:name`."""
    for code in CODE.findall(text_of(page)):
        if (found := PLACE.fullmatch(code)) and Path(found[1]).stem not in PLACEHOLDER:
            yield found[1], found[2]


def place_of(path):
    """Return the file that a page means: below the checkout, or below `nantui/`."""
    places = [place for place in (ROOT / path, ROOT / "nantui" / path) if place.is_file()]
    assert places, f"{path}: no such file"
    return places[0]


def defined(path):
    """Return the functions, methods, classes and constants of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    targets = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
    constants = {name.id for found in targets for name in found if isinstance(name, ast.Name)}
    return constants | {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_file_and_name_is_there(page):
    places = list(named(page))
    assert len(places) > 10, "nothing was found to check"
    for path, name in places:
        assert name is None or name in defined(place_of(path)), f"{page.name}: {path} has no {name}"
        place_of(path)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_folder_is_there(page):
    folders = {code for code in CODE.findall(text_of(page)) if FOLDER.fullmatch(code)}
    missing = [
        one for one in folders if not any((ROOT / top / one).is_dir() for top in ("", "nantui", *subrooms()))
    ]
    assert folders and missing == []


def subrooms():
    """Return the rooms that have rooms of their own: a page names these in the row of theirs."""
    return [path.relative_to(ROOT) for path in (ROOT / "nantui").iterdir() if path.is_dir()]


def test_bare_names_in_the_walks_are_of_the_place_before_them():
    """`file.py:one` and `other`: the second is of the same file."""
    pairs = re.findall(r"`([\w/]+\.py):\w+`\s+(?:and|or)\s+`(\w+)`", text_of(GUIDE))
    assert pairs
    for path, name in pairs:
        assert name in defined(place_of(path)), f"{path} has no {name}"


def test_every_room_is_in_the_table():
    table = re.findall(
        r"^\| ([^|]+) \|", text_of(GUIDE).partition("## Rooms")[2].partition("\n## ")[0], re.MULTILINE
    )
    rooms = {code.strip("/") for row in table for code in CODE.findall(row)}
    top = {path.name for path in (ROOT / "nantui").iterdir() if (path / "__init__.py").is_file()}
    files = {path.name for path in (ROOT / "nantui").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert rooms == (top - {"training"}) | files  # an old name


def test_ten_files_are_read_first():
    part = text_of(GUIDE).partition("## Ten files to read first")[2].partition("\n## ")[0]
    first = re.findall(r"^\d+\. `([^`]+)`", part, re.MULTILINE)
    assert len(first) == len(set(first)) == 10


DOTTED = re.compile(r"\bnantui((?:\.[a-z_]\w*)+)(?:\.([A-Z]\w+))?")
PATH = re.compile(r"\b(?:nantui|tests|benchmarks)/[\w/]+\.py\b")


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name
)
def test_modules_and_files_named_on_any_page_are_there(page):
    text = page.read_text(encoding="utf-8")
    for found in DOTTED.finditer(text):
        if found[1] not in {".toml", ".yaml"} and found[1][1:] not in nantui.__all__:
            place = ROOT / "nantui" / found[1][1:].replace(".", "/")
            module = place.with_suffix(".py") if not place.is_dir() else place / "__init__.py"
            function = module if module.is_file() else module.parent.with_suffix(".py")
            assert function.is_file(), f"{page.name}: {found[0]}"
            assert module.is_file() or module.stem in defined(function), f"{page.name}: {found[0]}"
            assert found[2] is None or found[2] in defined(module), f"{page.name}: {found[0]}"
    for path in PATH.findall(text):
        assert Path(path).stem in PLACEHOLDER or (ROOT / path).is_file(), f"{page.name}: {path}"
