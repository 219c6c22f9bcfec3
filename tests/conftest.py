"""What all rooms' tests share: a place for what is made once, warm processes, terminals; and who begins."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.screen import Screen
from tests.shared import Shared, folder_of_session
from tests.warm import WarmPython

# A busy machine is no error, and a failure comes back in the next run; "default" makes up other examples.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what is known of runs outside of them with this session, in all its processes."""
    state = folder_of_session(tmp_path_factory) / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state))
        yield state


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


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """What is made once a session, however many processes share the tests."""
    return Shared(folder_of_session(tmp_path_factory) / "shared")


@pytest.fixture(scope="session")
def warm_python() -> Iterator[str]:
    """An interpreter whose processes have torch imported from the start."""
    place = Path(tempfile.mkdtemp(prefix="nantui-"))  # a socket's path must be short
    warm = WarmPython(place)
    yield str(warm.path)
    warm.close()
    shutil.rmtree(place)


TRAINS = {"trainings", "run_of", "room", "poisoned_original", "finished_original"}
TRAINS |= {"warm_python", "unwatched", "broken"}
"""Fixtures for which something is trained; whatever uses one is left out of `make quick`."""
LONGEST_FIRST = (
    "test_real",
    "test_end_to_end",
    "test_supervisor_of_the_version_before",
    "test_exec",
    "test_matrix",
    "test_ddp_spawn",
    "test_real_training",
    "test_unattended",
    "test_distributed",
    "test_step_guard",
    "test_rebase",
    "test_control",
    "test_survival",
)
"""Files of half a minute and more, as measured; behind them the others that train."""


def pytest_collection_modifyitems(items):
    """Mark what trains. Whatever takes long begins early, so that no process works alone at the end."""
    for item in items:
        if TRAINS & set(item.fixturenames):
            item.add_marker("training")
    place = {name: index for index, name in enumerate(LONGEST_FIRST)}
    trains = {item.path for item in items if item.get_closest_marker("training")}
    items.sort(key=lambda item: (place.get(item.path.stem, len(place)), item.path not in trains))


def pytest_collection_finish():
    """Spare every later garbage collection the modules and tests, half a million objects.

    Ultralytics collects three times a training, 0.2 s each, which was half the time of a tiny one.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    """Let the interpreter take down what it would have taken down."""
    gc.unfreeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one process: it makes what they share once.

    The marks of pytest-xdist's own `--dist loadgroup` have no effect under pytest 9.2 (it sets `_nodeid`,
    which is no longer read).
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid.split("::")[0]

    config.option.loadscopereorder = False
    return ByFile(config, log)
