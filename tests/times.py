"""Where the time of the tests goes: `python -m pytest -p tests.times` says each folder's at the end.

CPU is that of the test and of the processes that it has waited for; what was detached, as a supervisor and
its training are, or forked by a server (tests/warm.py), is in none of the rows.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from pathlib import Path

import pytest

BEGAN = pytest.StashKey[tuple[float, float]]()
rows: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
"""By folder: tests, seconds of CPU, seconds."""


def spent() -> tuple[float, float]:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used), time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[BEGAN] = spent()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "teardown":
        took = tuple(now - then for now, then in zip(spent(), item.stash[BEGAN], strict=True))
        report.user_properties.append(("took", took))
    return report


def pytest_runtest_logreport(report):
    if took := dict(report.user_properties).get("took"):
        for name in (str(Path(report.nodeid.split("::")[0]).parent), "all"):
            rows[name] = [one + more for one, more in zip(rows[name], (1, *took), strict=True)]


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("seconds of each folder")
    terminalreporter.write_line(f"{'folder':32}{'tests':>8}{'CPU':>8}{'waited and worked':>20}")
    for name, (count, cpu, seconds) in sorted(rows.items(), key=lambda row: -row[1][1]):
        terminalreporter.write_line(f"{name:32}{count:8.0f}{cpu:8.1f}{seconds:20.1f}")
