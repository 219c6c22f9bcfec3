"""The pages about labels and diagnosis say what the code does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nantui.diagnosis import evidence, replay
from nantui.diagnosis.evidence import PRIOR
from nantui.labels.problem_kinds import KINDS

DOCS = Path(__file__).resolve().parents[2] / "docs"
LABELS, DIAGNOSIS = (DOCS / "labels.md").read_text(), (DOCS / "diagnosis.md").read_text()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_label_problem_has_its_row(kind):
    note = " **(image lost)**" if kind.drops else " **(no training)**" if kind.blocks else ""
    row = f"| `{kind.name}` | {kind.severity} | {kind.title} | {kind.ultralytics}{note} | {kind.danger} |"
    assert row in LABELS.splitlines()


def evidence_names():
    for module in (evidence, replay):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Evidence":
                yield node.args[0].value


@pytest.mark.parametrize("name", sorted(set(evidence_names())))
def test_every_piece_of_evidence_is_explained(name):
    assert f"`{name}`" in DIAGNOSIS


def test_every_prior_is_written_down():
    for cause, prior in PRIOR.items():
        row = next(line for line in DIAGNOSIS.splitlines() if line.startswith(f"| `{cause}`"))
        assert row.endswith(f"| {prior * 100:g} % |")
