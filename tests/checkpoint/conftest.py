"""The trainings of this room, made once a session, and tools to break copies of their files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nantui.checkpoint import scan
from tests.checkpoint.lists import age
from tests.checkpoint.trainings import RECIPES, train
from tests.shared import Shared

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def run_of(shared: Shared) -> Callable[[str], Path]:
    """Return a function from a recipe's name to its finished run directory.

    NANTUI_TEST_TRAININGS names a directory to keep them in, for somebody who runs the tests often.
    """
    kept = os.environ.get("NANTUI_TEST_TRAININGS")
    place = Shared(Path(kept).absolute()) if kept else shared

    def run(name: str) -> Path:
        room = place.root / "checkpoint" / name  # with a data set of its own: nobody else writes there
        place.made(f"checkpoint/{name}", lambda: train(RECIPES[name], room))
        return room / name

    return run


@pytest.fixture(scope="session")
def healthy(run_of: Callable[[str], Path]) -> Path:
    """A healthy, unstripped, resumable YOLOv8n detection checkpoint: the third of four epochs."""
    return run_of("detect8") / "weights" / "epoch2.pt"


@pytest.fixture(scope="session")
def older(run_of: Callable[[str], Path]) -> Path:
    """The checkpoint one epoch before `healthy`."""
    return run_of("detect8") / "weights" / "epoch1.pt"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the person's own cache of verdicts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def weights(run_of, tmp_path):
    """A copy of a healthy run's weights, with the times of an hour ago."""
    target = tmp_path / "run" / "weights"
    shutil.copytree(run_of("detect8") / "weights", target)
    for index, name in enumerate(["epoch0", "epoch1", "epoch2", "epoch3", "last", "best"]):
        age(target / f"{name}.pt", index * 60)
    return target


@pytest.fixture
def looked(monkeypatch):
    """The names of the files that were really looked at, in order."""
    seen = []
    real = scan.scan_alone

    def look(path, **options):
        seen.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(scan, "scan_alone", look)
    return seen
