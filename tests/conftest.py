"""What all rooms' tests share.

Trainings are cached per test session and process, so the tests of one room stay together when several
processes share the work.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.screen import Screen

HERE = Path(__file__).parent


@pytest.fixture
def terminal():
    """Open cockpits in terminals of their own; those that are left are killed after the test."""
    opened: list[Screen] = []

    def start(*words, **options):
        opened.append(Screen(words, **options))
        return opened[-1]

    yield start
    for screen in opened:
        if screen.process.poll() is None:
            screen.kill()


def pytest_collection_modifyitems(items):
    for item in items:
        room = Path(item.path).relative_to(HERE).parts[0]
        item.add_marker(pytest.mark.xdist_group(room))
