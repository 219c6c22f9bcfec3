"""Choose the tests of what has changed: `python -m pytest -p tests.changed`, as `make quick` does.

Changed is what differs from the branch main, committed or not. A test file is chosen if it lies in the folder
that mirrors that of a changed file, if it or a conftest.py of its room imports or names a changed module, and
if it is cheap and about the whole tree (`ALWAYS`). Who reaches a change by a detour is left to `make test`.
What was left out is said at the end; where nobody can tell what a change concerns, nothing is left out.
"""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAIN = ("origin/main", "main")
ABOUT_ALL = ("guide", "keys", "pages", "reference", "rooms")
ALWAYS = (
    "tests/test_entry_points.py", "tests/test_imports.py", "tests/test_order.py",
    *(f"tests/docs/test_{name}.py" for name in ABOUT_ALL),
)  # fmt: skip
ELSEWHERE = {
    "styles": ("tests/ui",), "configs": ("tests/settings", "tests/recovery"), "docs": ("tests/docs",),
    "nantui/commands": ("tests", "tests/docs"),
    **dict.fromkeys(("benchmarks", "devtools", "screenshots", ".ci", ".github"), ()),
    **dict.fromkeys(("Dockerfile", "LICENSE", "Makefile", "CITATION.cff", ".pre-commit-config.yaml"), ()),
}  # fmt: skip
"""The tests' folders about what lies in no folder of that name."""


def differing() -> set[str] | None:
    """Return the files that differ from main, or None where git does not know."""
    for name in MAIN:
        if (base := git("merge-base", "HEAD", name)) is not None:
            known = git("diff", "--name-only", "--no-renames", base.strip())
            new = git("ls-files", "--others", "--exclude-standard")
            return {*(known or "").splitlines(), *(new or "").splitlines()}
    return None


def git(*words: str) -> str | None:
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def folders_about(file: str) -> tuple[str, ...] | None:
    """Return the folders of the tests about a file, or None where they may be all."""
    top, *inside = file.split("/")[:-1] or [file]
    if top == "tests" and (not inside or inside[0] == "data"):
        return None
    if top not in ("nantui", "tests"):
        return () if file.endswith(".md") else ELSEWHERE.get(top)
    mirror = ROOT.joinpath("tests", *inside)
    while mirror != ROOT / "tests" and not any(mirror.glob("test_*.py")):
        mirror = mirror.parent
    return (mirror.relative_to(ROOT).as_posix(), *ELSEWHERE.get("/".join([top, *inside[:1]]), ()))


def room_of(test: str) -> str:
    return "/".join(test.split("/")[:-1][:2])


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def chosen(changed: Iterable[str], tests: Iterable[str]) -> set[str]:
    """Return those of the test files `tests` that are about `changed`, all if one of these may concern all.

    Both are paths below the root of the repository.
    """
    tests, changed = set(tests), set(changed)
    folders, modules = set(), set()
    for file in changed - tests:
        about = folders_about(file)
        if about is None:
            return tests
        folders |= {*about}
        if file.endswith(".py"):
            modules.add(module_of(file))
    return changed & tests | {
        test for test in tests if test in ALWAYS or str(Path(test).parent) in folders or modules & named(test)
    }


def named(test: str) -> set[str]:
    """Return the modules that a test file and its conftest.py import or name, as processes to start."""
    here = Path(test)
    shared = [ROOT / folder / "conftest.py" for folder in here.parents if len(folder.parts) > 1]
    return set().union(*map(named_in, [ROOT / here, *shared]))


@cache
def named_in(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    found = {text for text in texts if isinstance(text, str) and text.startswith("nantui.")}
    for module, name in imported_names(tree):
        found |= {module, f"{module}.{name}"}
    return found


def imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every import: also in functions, and for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports are not followed here"
            yield from ((node.module, alias.name) for alias in node.names)


class Chosen:
    """Has pytest look into the chosen test files only."""

    def __init__(self, changed: set[str] | None) -> None:
        self.all = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
        self.files = self.all if changed is None else chosen(changed, self.all)
        self.others = self.all - self.files

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        inside = collection_path.is_relative_to(ROOT)
        return (inside and collection_path.relative_to(ROOT).as_posix() in self.others) or None

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.others:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        left, every = (Counter(map(room_of, files)) for files in (self.others, self.all))
        if left:
            rooms = (
                room if left[room] == every[room] else f"{left[room]} files of {room}"
                for room in sorted(left)
            )
            terminalreporter.write_line(f"Left out, as what has changed is elsewhere: {', '.join(rooms)}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Chosen(differing()))
