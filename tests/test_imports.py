"""The import arrows of docs/architecture.md hold: by reading the code, and by running it."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.changed import imported_names

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "ultralytics", "textual", "pandas", "numpy", "plotext", "matplotlib"}


def test_arrows_by_reading():
    linter = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert linter.returncode == 0, linter.stdout + linter.stderr


def modules_below(root: Path, package: str) -> dict[str, Path]:
    """Return the source of each module of `package` by its dotted name."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (root / package).rglob("*.py")
    }


def circle(sources: Mapping[str, str]) -> list[str]:
    """Return modules of which each imports the one before it, the first again at the end; or nothing."""
    graph = {
        module: {
            found
            for name, member in imported_names(ast.parse(source))
            if (found := f"{name}.{member}" if f"{name}.{member}" in sources else name) in sources
        }
        for module, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_nothing_imports_itself_by_a_detour():
    sources = {name: path.read_text() for name, path in modules_below(ROOT, "nantui").items()}
    assert len(sources) > 200
    assert circle(sources) == []


@pytest.mark.parametrize(
    "back",
    [
        "from p.a import x",
        "import p.a",
        "from p import a",
        "def later():\n    from p import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import X",
    ],
)
def test_a_detour_is_found_wherever_the_import_stands(back):
    sources = {"p": "", "p.a": "from p.b import y", "p.b": "import p.c as c", "p.c": back}
    assert set(circle(sources)) == {"p.a", "p.b", "p.c"}
    assert circle({**sources, "p.c": "import os"}) == []


def modules_after(statement):
    code = f"{statement}\nimport sys; print(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "module",
    ["nantui.cli", "nantui.commands.common", "nantui.supervisor", "nantui.supervisor.client",
     "nantui.supervisor.status", "nantui.recovery.plan", "nantui.settings.schema", "nantui.machine.gpus"],
)  # fmt: skip
def test_light_by_running(module):
    assert modules_after(f"import {module}") & HEAVY == set()


def test_nothing_slow_is_imported_before_the_first_frame(tmp_path):
    slow = (HEAVY - {"textual"}) | {"yaml", "psutil"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/args.yaml").write_text("epochs: 1\n")
    found = f"from nantui.commands import cockpit; assert cockpit.runs_to_show(Path({str(tmp_path)!r}))"
    assert modules_after(f"from pathlib import Path; {found}; import nantui.ui.app") & slow == set()


def test_every_command_imports_nothing_heavy():
    from nantui.cli import COCKPIT, COMMANDS, TOGETHER

    modules = {TOGETHER.get(name, name) for name in [*COMMANDS, COCKPIT]}
    imports = "; ".join(f"import nantui.commands.{name}" for name in modules)
    assert modules_after(imports) & HEAVY == set()
