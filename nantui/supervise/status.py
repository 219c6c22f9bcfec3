"""Where a run stands, read cheaply by anybody at any time, and never trusting a pid alone.

supervisor.json says what the supervisor last knew. When that process is gone, the truth is in what is left:
living processes (the worker goes on without it), exit files, or nothing (`lost`).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from nantui.run.attempts import Attempt, read_attempt
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow, current, epoch_seconds, read_results
from nantui.run.spec import read_args
from nantui.run.status import ACTIVE, FOREIGN, LOST, RUNNING, STARTING, STOPPED, RunStatus
from nantui.run.steps import Step
from nantui.supervise.identity import alive, this_machine
from nantui.supervise.outcome import ending_of
from nantui.supervise.state import SupervisorState, read_state
from nantui.supervise.tail import last_step

RECENT_EPOCHS = 5


def read_status(run: Path) -> RunStatus:
    """Return where the run in `run` stands; a run that nantui did not make is `foreign`."""
    layout = RunLayout(Path(run).resolve())
    state = read_state(layout.supervisor)
    number = max(layout.attempt_numbers(), default=None)
    attempt = read_attempt(layout, number) if number else None
    if state is None and attempt is None:
        return foreign_status(layout)
    status = RunStatus(layout.run, STARTING if state is None else state.state or STOPPED, attempt=number)
    if state is not None:
        status = _from_supervisor(layout, status, state)
    return _with_progress(layout, status, attempt)


def foreign_status(layout: RunLayout) -> RunStatus:
    """Return what `results.csv` and `args.yaml` tell of a run."""
    rows = current(read_results(layout.results_csv))
    state = STARTING if layout.spec.is_file() else FOREIGN
    status = RunStatus(layout.run, state, epochs=_whole(read_args(layout.args_yaml).get("epochs")))
    return _with_row(status, rows)


def _from_supervisor(layout: RunLayout, status: RunStatus, state: SupervisorState) -> RunStatus:
    status = replace(
        status,
        text=state.text,
        doing=state.doing,
        host=state.machine.host,
        last_incident=state.last_incident,
        guarded=state.guarded,
    )
    here = this_machine()
    if not here.sees_pids_of(state.machine):
        return _from_elsewhere(status, state, here.outlived(state.machine))
    pids = tuple(ref.pid for ref in (state.worker,) if ref is not None and alive(ref))
    if alive(state.process):
        return replace(status, pids=pids)
    return _without_supervisor(layout, replace(status, pids=pids, doing=None))


def _from_elsewhere(status: RunStatus, state: SupervisorState, outlived: bool) -> RunStatus:
    """A run of another host is as its supervisor said; one of an earlier boot of this host has lost its
    worker.
    """
    if outlived and state.state in ACTIVE:
        return replace(
            status, state=LOST, text="the host was rebooted or the container restarted: resume it", doing=None
        )
    return status


def _without_supervisor(layout: RunLayout, status: RunStatus) -> RunStatus:
    if status.state not in ACTIVE:
        return status
    if status.pids:
        text = "its supervisor is gone; the training goes on, the next command adopts it"
        return replace(status, state=RUNNING, text=text)
    if status.attempt is None:
        return replace(status, state=STOPPED)
    ending = ending_of(layout, status.attempt, seen=False)
    return replace(status, state=ending.outcome, text=ending.text)


def _with_progress(layout: RunLayout, status: RunStatus, attempt: Attempt | None) -> RunStatus:
    step = last_step(layout.steps(attempt.attempt)) if attempt else None
    rows = current(read_results(layout.results_csv))
    epochs = _whole((attempt.train if attempt else {}).get("epochs")) or _whole(
        read_args(layout.args_yaml).get("epochs")
    )
    status = replace(status, epochs=epochs)
    if step is None:
        return _with_row(status, rows)
    status = replace(
        status, epoch=step.epoch, step=step.step, steps_per_epoch=step.steps, losses=dict(step.losses)
    )
    return replace(status, eta_s=eta_s(status, rows, step) if status.state in ACTIVE else None)


def _with_row(status: RunStatus, rows: list[EpochRow]) -> RunStatus:
    if not rows:
        return status
    return replace(status, epoch=rows[-1].epoch, losses=rows[-1].losses("train"))


def eta_s(status: RunStatus, rows: list[EpochRow], step: Step) -> float | None:
    """Return the seconds to the end, from the last epochs' times; from step times inside the first epoch."""
    if not status.epochs:
        return None
    left_epochs = max(0.0, status.epochs - step.epoch + 1 - step.step / max(step.steps, 1))
    recent = epoch_seconds(rows)[-RECENT_EPOCHS:]
    seconds = statistics.median(recent) if recent else step.value("step_s") * step.steps
    return left_epochs * seconds if math.isfinite(seconds) else None


def _whole(value: Any) -> int | None:
    return (
        int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
        else None
    )
