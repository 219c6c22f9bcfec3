"""Are the places that the guard stands on there? Read from the source of Ultralytics' trainer.

`nantui doctor` asks for the installed version, whichever interpreter it belongs to; the worker asks for the
very class that it is about to guard, which may be somebody's own with a loop of its own. Where a needed place
is missing nothing is installed, and the run is shown as unguarded: half a guard would promise too much.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nantui.errors import UserError
from nantui.run.atomic_files import read_text
from nantui.run.documents import table

LOOP, SETUP = "_do_train", "_setup_train"
ASKED = table("guard_requirements")
CALLS, REPLACED, POINTS = ASKED["calls"], ASKED["replaced"], ASKED["points"]
"""What has to be in which method, what is replaced, and what a step point leans on."""


@dataclass(frozen=True)
class Hook:
    """One place: its name for people, what it is for, whether a guard needs it, whether it is there."""

    name: str
    why: str
    needed: bool
    held: bool


def read_hooks(package: Path) -> list[Hook]:
    """Return every hook of an installed Ultralytics. Raises UserError when its source cannot be read."""
    path = package / "engine" / "trainer.py"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: {error}; is this Ultralytics whole?") from None
    base = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "BaseTrainer"]
    return hooks_of(methods_of(base))


def lacking_for_points(package: Path) -> list[str]:
    """Return what an installed Ultralytics lacks of `POINTS`; its runs are resumed by epochs."""
    wanted = [(place, name) for name, places in POINTS.items() for place in places]
    return [f"{place} in {name}" for place, name in wanted if place not in (read_text(package / name) or "")]


@lru_cache(maxsize=64)
def source_of(cls: type) -> ast.ClassDef | None:
    """Return a class as it was written, None where its source cannot be read.

    Read once a class and process: finding a class in its file takes a tenth of a second.
    """
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    return node if isinstance(node, ast.ClassDef) else None


def methods_of(classes: Iterable[ast.ClassDef]) -> dict[str, ast.FunctionDef]:
    """Return the methods that an object has whose classes are these, in the order of lookup."""
    found: dict[str, ast.FunctionDef] = {}
    for node in classes:
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                found.setdefault(item.name, item)
    return found


def hooks_of(methods: Mapping[str, ast.FunctionDef]) -> list[Hook]:
    """Return every hook of a trainer that has these methods."""
    said = {name: _said(methods[name]) if name in methods else set() for name in (LOOP, SETUP)}
    calls = [Hook(f"{what} in {where}", why, True, what in said[where]) for where, what, why in CALLS]
    return calls + [Hook(name, why, needed, name in methods) for name, why, needed in REPLACED]


def missing(hooks: Iterable[Hook]) -> list[str]:
    """Return the names of needed places that are not there."""
    return [hook.name for hook in hooks if hook.needed and not hook.held]


def _said(method: ast.FunctionDef) -> set[str]:
    """Return what a method does with `self`, in the words of `CALLS`."""
    found = set()
    for node in ast.walk(method):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            events = [str(word.value) for word in node.args[:1] if isinstance(word, ast.Constant)]
            found |= {f'{name.removeprefix("self.")}("{event}")' for event in events} | {f"{name}()"}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(f"{ast.unparse(node)} =")
    return found
