"""The order in which the tests begin names files that are there."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import LONGEST_FIRST


def test_the_longest_files_are_there():
    assert set(LONGEST_FIRST) <= {path.stem for path in Path(__file__).parent.rglob("test_*.py")}
