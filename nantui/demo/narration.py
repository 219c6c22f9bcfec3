"""What the demo says about itself: what will happen, what has happened, what to try on one's own data."""

from __future__ import annotations

from collections.abc import Sequence

from nantui.demo.story import ACT_ONE, ACT_TWO, EPOCHS
from nantui.run import status as run_status
from nantui.run.events import Event, Incident, RollbackDone, of_kind

COMING = f"""Coming: in epoch {ACT_ONE["epoch"]} a NaN is planted in the BatchNorm statistics, \
as a bad batch in half precision leaves it"""
HAPPENED = """Happened: NaN. Ultralytics would train on and save ruined checkpoints. \
Press R, read the plan, then y"""
RECOVERED = f"""Happened: back at a clean checkpoint, with safer settings. \
Coming: a NaN pixel in epoch {ACT_TWO["epoch"]}; the guard skips that step"""
SKIPPED = f"""Happened: the bad step was skipped, no weight was touched. \
Coming: the end, in epoch {EPOCHS}"""
FINISHED = """Finished. d says why it happened, v compares both attempts. \
On your data: nantui train model=.. data=.., or nantui and a folder of runs"""


def narrate(state: str, journal: Sequence[Event]) -> str:
    """Return what there is to say while the run is in `state`."""
    incidents, back = of_kind(journal, Incident), of_kind(journal, RollbackDone)
    if state == run_status.FINISHED and back:
        return FINISHED
    if back:
        return SKIPPED if any(one.harmless and one.t > back[-1].t for one in incidents) else RECOVERED
    return HAPPENED if incidents else COMING
