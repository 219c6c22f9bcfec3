"""What all rooms' tests share.

Trainings are cached per test session and process, so the tests of one room stay together when several
processes share the work.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        room = Path(item.path).relative_to(HERE).parts[0]
        item.add_marker(pytest.mark.xdist_group(room))
