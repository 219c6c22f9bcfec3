"""The import arrows of docs/architecture.md hold: by reading the code, and by running it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "ultralytics", "textual", "pandas", "numpy", "plotext", "matplotlib"}


def test_arrows_by_reading():
    linter = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert linter.returncode == 0, linter.stdout + linter.stderr


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


def test_every_command_imports_nothing_heavy():
    from nantui.cli import COCKPIT, COMMANDS

    imports = "; ".join(f"import nantui.commands.{name}" for name in [*COMMANDS, COCKPIT])
    assert modules_after(imports) & HEAVY == set()
