"""What all rooms' tests share.

Trainings are cached per process, so the tests that share them stay together when several processes share the
work.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.screen import Screen

HERE = Path(__file__).parent

# A busy machine is no error, and a failure comes back in the next run; "default" makes up other examples.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


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


TOGETHER = ("checkpoint", "settings")
"""Rooms whose files share trainings, or what Ultralytics was asked once."""
LONGEST_FIRST = (
    "training",
    "demo",
    "hosts",
    "compat",
    "recovery",
    "supervise",
    "checkpoint",
    "diagnosis",
    "settings",
)


def pytest_collection_modifyitems(items):
    """Whatever takes long begins early, so that no process works alone at the end."""
    rooms = [Path(item.path).relative_to(HERE).parts[0] for item in items]
    place = {room: LONGEST_FIRST.index(room) for room in set(rooms) & set(LONGEST_FIRST)}
    order = sorted(range(len(items)), key=lambda index: place.get(rooms[index], len(LONGEST_FIRST)))
    items[:] = [items[index] for index in order]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file, or of a room that shares trainings, in one process.

    The marks of pytest-xdist's own `--dist loadgroup` have no effect under pytest 9.2 (it sets `_nodeid`,
    which is no longer read).
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFileOrRoom(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            room = Path(file).parts[1]
            return room if room in TOGETHER else file

    config.option.loadscopereorder = False
    return ByFileOrRoom(config, log)
