"""What all rooms' tests share: a place for what is made once, warm processes, terminals; and who begins."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.screen import Screen
from tests.shared import Shared, folder_of_session, owner_of_session
from tests.warm import NANTUI, TORCH, stand_in, start_servers

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
def nantui_python(shared: Shared) -> str:
    """An interpreter that has imported nantui, one for all processes of the session."""
    written = shared.root / "nantui-python"

    def start() -> None:
        place = Path(tempfile.mkdtemp(prefix="nantui-"))  # a socket's path must be short
        start_servers(f"{place}/", NANTUI, owner_of_session())
        written.write_text(stand_in(place, torch=False))

    return shared.made(written.name, start).read_text()


@pytest.fixture
def quick_start(nantui_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let supervisors, helpers and commands that a test starts have imported nantui already."""
    monkeypatch.setattr(sys, "executable", nantui_python)


@pytest.fixture(scope="session")
def torch_python(shared: Shared, nantui_python: str) -> str:
    """One that has imported torch and Ultralytics as well."""
    written, place = shared.root / "torch-python", Path(nantui_python).parent

    def start() -> None:
        start_servers(f"{place}/", TORCH, owner_of_session())
        written.write_text(stand_in(place, torch=True))

    return shared.made(written.name, start).read_text()


@pytest.fixture(scope="session")
def warm_python(torch_python: str) -> str:
    """The same, where something is trained."""
    return torch_python


TRAINS = {"trainings", "run_of", "room", "poisoned_original", "finished_original"}
TRAINS |= {"warm_python", "unwatched", "broken"}
"""Fixtures for which something is trained; whatever uses one is left out of `make quick`."""
LONGEST_FIRST = (
    "test_end_to_end", "test_real", "test_healthy", "test_validation_precision", "test_loss_scale",
    "test_wheel", "test_rewind", "test_step_points", "test_matrix", "test_suspicion", "test_sample",
    "test_crash", "test_step_guard", "test_mutations", "test_acting_keys", "test_transaction", "test_legible",
    "test_config_screen", "test_copied_run", "test_sole_doer", "test_recover_dialog", "test_run_screen",
    "test_other_screens", "test_control", "test_survival", "test_queue",
)  # fmt: skip
"""The files that take longest, as measured (tests/times.py); behind them the others that train."""


def pytest_collection_modifyitems(items):
    """Mark what trains. Whatever takes long begins early, so that no process works alone at the end."""
    for item in items:
        if TRAINS & set(item.fixturenames):
            item.add_marker("training")
    place = {name: index for index, name in enumerate(LONGEST_FIRST)}
    trains = {item.path for item in items if item.get_closest_marker("training")}
    items.sort(key=lambda item: (place.get(item.path.stem, len(place)), item.path not in trains))


def pytest_sessionstart():
    """Look for no garbage while tests are collected: what they import stays."""
    gc.disable()


def pytest_collection_finish():
    """Spare every later garbage collection the modules and tests, half a million objects.

    Ultralytics collects three times a training, 0.2 s each, which was half the time of a tiny one; pytest
    does at the end. The interpreter takes them down: libraries would report them as leaked.
    """
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)


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
