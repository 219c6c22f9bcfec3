"""Where a run stands, read cheaply by anybody at any time, and never trusting a pid alone.

supervisor.json says what the supervisor last knew. When that process is gone, the truth is in what is left:
living processes (the worker goes on without it), exit files, or nothing (`lost`).

A run with a plan in its status: the epochs of all phases, and the time to the end of the last one.

All runs below a directory, read side by side: on a slow disk hundreds of reads must not wait in line.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

import psutil

from nantui.errors import UserError
from nantui.machine.process_identity import ProcessRef, alive, this_machine
from nantui.run.atomic_files import Identity, identity
from nantui.run.attempts import FINISHED, Attempt, read_attempt, read_exits, registered
from nantui.run.binding import STRANGE, standing
from nantui.run.commands import pending_commands
from nantui.run.journal import Journal, interrupted, standing_attempt
from nantui.run.layout import RunLayout, find_runs
from nantui.run.plan import CURRENT, epochs_in_all, read_parts, waiting_seconds
from nantui.run.record import RunRecord
from nantui.run.results import EpochRow, Metric, last_epochs, median_epoch_s, read_metric
from nantui.run.spec import epochs_asked
from nantui.run.status import ACTIVE, FOREIGN, LOST, QUEUED, RUNNING, STARTING, STOPPED, RunStatus
from nantui.run.telemetry import Step, last_step
from nantui.supervisor.directories import other_place, stray_words
from nantui.supervisor.foreign import (
    ForeignProcess,
    candidates,
    describe,
    find_foreign,
    log_of,
    read_progress,
)
from nantui.supervisor.hosts.reports import host_rows
from nantui.supervisor.outcome import ending_of
from nantui.supervisor.queue.entries import place_of
from nantui.supervisor.state import SupervisorState, read_state

SILENT_S = 60.0
REBOOTED = "the host was rebooted or the container restarted: resume it"
HALF_DONE = "a rollback was interrupted: the next command finishes it or takes it back"
Candidates = Callable[[], Iterable[ForeignProcess]]
READERS = 8


def with_plan(layout: RunLayout, status: RunStatus) -> RunStatus:
    """Return the status of a run with a plan: `phase` says more, `eta_s` counts to the end of the last phase
    and is None where the time of one that waits is not known. A spec that cannot be read changes nothing.
    """
    seen = tuple(map(identity, (layout.spec, layout.journal, layout.results_csv)))
    phase, seconds = _phase(layout.run, status.epochs, seen)
    if phase is None or phase["number"] != (status.phase or {}).get("number"):
        return status
    whole = None if status.eta_s is None or phase["unknown"] else status.eta_s + seconds
    return replace(status, phase={**phase, "eta_s": status.eta_s}, eta_s=whole)


@lru_cache(maxsize=512)
def _phase(
    run: Path, epochs: int | None, seen: tuple[Identity, ...]
) -> tuple[dict[str, object] | None, float]:
    """Return the current phase, None where there is none, and the seconds of those that wait.

    Asked every second; read again only when the files are no longer those that were `seen`.
    """
    record = RunRecord(RunLayout(run))
    try:
        parts = read_parts(record.layout, record.spec, record.journal, epochs) if record.spec else []
    except UserError:
        return None, 0.0
    now = next((part for part in parts if part.state == CURRENT), None)
    if now is None:
        return None, 0.0
    seconds, unknown = waiting_seconds(parts)
    place = {"number": now.number, "of": len(parts), "title": now.title, "unknown": unknown}
    return {**place, "epochs_before": now.begins, "epochs_in_all": epochs_in_all(parts)}, seconds


def read_status(run: Path, foreign: Candidates = candidates, log: Path | None = None) -> RunStatus:
    """Return where the run in `run` stands; a run that nantui did not make is `foreign`.

    `foreign` returns the processes that may belong to a foreign run; whoever reads many runs passes one that
    looks only once. `log` is where a foreign training prints to, for one whose standard output is no file.
    """
    layout = RunLayout(Path(run).resolve())
    status = _read_status(layout, foreign, log)
    return replace(status, metric=_metric(layout.results_csv, identity(layout.results_csv)))


def whether_over(layout: RunLayout) -> tuple[RunStatus, bool]:
    """Return where a run stands, and whether it is over: nothing trains, is being done, or waits to be."""
    asked = bool(pending_commands(layout))  # first: what is taken up meanwhile shows in the state
    status = read_status(layout.run)
    busy = asked or status.state in ACTIVE or status.doing
    return status, not (busy or (status.state == FOREIGN and status.pids))


@lru_cache(maxsize=512)
def _metric(results: Path, _seen: Identity) -> Metric | None:
    """Return what the training is for, read again only when the file is no longer the one that was seen."""
    return read_metric(results)


def _read_status(layout: RunLayout, foreign: Candidates, log: Path | None) -> RunStatus:
    if os.path.isdir(layout.home) and not os.access(layout.home, os.R_OK | os.X_OK):
        text = f"{layout.home} may not be read: ask whoever owns it"
        status = RunStatus(layout.run, FOREIGN, epochs=epochs_asked(layout.args_yaml), text=text)
        return _with_row(status, last_epochs(layout.results_csv))
    state = read_state(layout.supervisor)
    number = layout.newest_attempt() or None
    attempt = read_attempt(layout, number) if number else None
    if attempt is None and (state is None or state.state in {"", STOPPED}):
        return _foreign_status(layout, state, foreign, log)
    status = RunStatus(layout.run, (state.state if state else "") or STARTING, attempt=number)
    if state is not None:
        status = _from_supervisor(layout, status, state)
    elif number and layout.ranks(number):
        # A training under `attach` has no supervisor: its ranks say that they live, or how they ended.
        pids = _pids(registered(layout, number).values())
        if pids and not read_exits(layout, number):
            status = replace(status, state=RUNNING, pids=pids, text="trains under its own script")
        else:
            status = _ended(layout, status, number)
    if status.state in {*ACTIVE, LOST} and (state is None or this_machine().sees_pids_of(state.machine)):
        status = _by_its_place(layout, status, attempt)
    if attempt is not None and attempt.nnodes > 1:
        status = replace(status, hosts=host_rows(layout, attempt.attempt, status.host))
    if number and number > 1 and status.state not in ACTIVE:
        attempt = read_attempt(layout, _in_force(layout, number, identity(layout.journal))) or attempt
    return _with_progress(layout, status, attempt)


def _by_its_place(layout: RunLayout, status: RunStatus, attempt: Attempt | None) -> RunStatus:
    """What lives may be another directory's: this one was copied, or renamed, while it trained."""
    place = other_place(layout.run, attempt)
    if place and standing(layout.run) == STRANGE:
        text = f"copied from {place}: nothing trains here"
        return replace(status, state=STOPPED, pids=(), doing=None, text=text)
    text = f"renamed while it trains: it goes on writing to {place}"
    return replace(status, text=text) if place and status.pids else status


@lru_cache(maxsize=512)
def _in_force(layout: RunLayout, newest: int, _seen: Identity) -> int:
    return standing_attempt(Journal(layout.journal).events(), newest)


def _foreign_status(
    layout: RunLayout, state: SupervisorState | None, foreign: Candidates, log: Path | None
) -> RunStatus:
    """Return what `results.csv`, `args.yaml` and the processes of somebody else's training tell."""
    if os.path.isfile(layout.spec) and not os.path.isfile(layout.args_yaml):
        if state is not None and state.state == STOPPED:
            return RunStatus(layout.run, STOPPED, text=state.text)
        place, words = place_of(layout.run)
        if place:
            return RunStatus(layout.run, QUEUED, text=words, place=place)
        return RunStatus(layout.run, STARTING, text="created, not started yet")
    doing = state.doing if state and alive(state.process) else None
    status = RunStatus(layout.run, FOREIGN, epochs=epochs_asked(layout.args_yaml), doing=doing)
    text = stray_words(layout.run) or "no process of it runs here"
    status = replace(_with_row(status, last_epochs(layout.results_csv)), text=text)
    if found := find_foreign(layout.run, foreign()):
        one = found[0]
        text = f"{describe(one, with_gpu=True)} ({one.evidence})"
        text += f"; started again by {by}" if (by := one.restarted_by) else ""
        status = replace(status, pids=tuple(pid for each in found for pid in each.pids), text=text)
        log = log or log_of(one.ref.pid)
    return replace(status, **read_progress(log)) if log else status


def _from_supervisor(layout: RunLayout, status: RunStatus, state: SupervisorState) -> RunStatus:
    own = ("text", "doing", "last_incident", "guarded", "ending")
    status = replace(status, host=state.machine.host, **{name: getattr(state, name) for name in own})
    here, active = this_machine(), status.state in ACTIVE
    if not here.sees_pids_of(state.machine):  # as its supervisor said; an earlier boot has lost its worker
        lost = active and here.outlived(state.machine)
        return replace(status, state=LOST, text=REBOOTED, doing=None, ending="rebooted") if lost else status
    if active:  # the ranks' own children come and go and are not listed
        ranks = registered(layout, state.attempt).values() if state.attempt else ()
        worker = [state.worker] if state.worker and alive(state.worker) else []
        status = replace(status, pids=_pids([*worker, *ranks]))
    with contextlib.suppress(psutil.NoSuchProcess):
        if state.waiting is not None and alive(state.waiting):
            held = psutil.Process(state.waiting.pid).memory_info().rss / 1e6
            waits = f"the next worker waits (process {state.waiting.pid}, {held:.0f} MB)"
            status = replace(status, text="; ".join(filter(None, [status.text, waits])))
    if alive(state.process):
        silent_s = time.time() - state.heartbeat
        hangs = f"its supervisor hangs: silent for {silent_s:.0f} s"
        return replace(status, text=hangs) if silent_s > SILENT_S else status
    status = replace(status, doing=None)
    if status.pids:
        text = "its supervisor is gone; the training goes on, the next command adopts it"
        return replace(status, state=RUNNING, text=text)
    if active:
        ended = status.attempt is not None
        status = _ended(layout, status, status.attempt or 0) if ended else replace(status, state=STOPPED)
    if state.doing and interrupted(Journal(layout.journal).events()) is not None:
        return replace(status, text=HALF_DONE)
    return status


def _ended(layout: RunLayout, status: RunStatus, number: int) -> RunStatus:
    ending = ending_of(layout, number)
    return replace(status, state=ending.outcome, text=ending.shown, ending=ending.cause.kind)


def _pids(found: Iterable[ProcessRef]) -> tuple[int, ...]:
    return tuple(sorted({ref.pid for ref in found}))


def _with_progress(layout: RunLayout, status: RunStatus, attempt: Attempt | None) -> RunStatus:
    step = last_step(layout.steps(attempt.attempt)) if attempt else None
    rows = last_epochs(layout.results_csv)
    train = attempt.train if attempt else {}
    asked = None if train.get("time") else train.get("epochs")
    epochs = asked if isinstance(asked, int) else epochs_asked(layout.args_yaml)
    status = replace(status, epochs=epochs, phase=attempt.phase if attempt else None)
    if step is None:
        status = _with_row(status, rows)
    else:
        losses = dict(step.losses)
        if status.state == FINISHED and rows and not all(map(math.isfinite, losses.values())):
            losses = rows[-1].losses("train")  # its last batch was a bad one, and skipped
        left_s = eta_s(status, rows, step) if status.state in ACTIVE else None
        status = replace(status, epoch=step.epoch, step=step.step, steps_per_epoch=step.steps)
        status = replace(status, losses=losses, eta_s=left_s)
    return with_plan(layout, status) if status.phase else status


def _with_row(status: RunStatus, rows: list[EpochRow]) -> RunStatus:
    if not rows:
        return status
    return replace(status, epoch=rows[-1].epoch, losses=rows[-1].losses("train"))


def eta_s(status: RunStatus, rows: list[EpochRow], step: Step) -> float | None:
    """Return the seconds to the end, from the last epochs' times; from step times inside the first epoch."""
    if not status.epochs:
        return None
    left_epochs = max(0.0, status.epochs - step.epoch + 1 - step.step / max(step.steps, 1))
    recent = median_epoch_s(rows)
    seconds = step.value("step_s") * step.steps if math.isnan(recent) else recent
    return left_epochs * seconds if math.isfinite(seconds) else None


def each_status(top: Path) -> Iterator[RunStatus]:
    """Yield the status of every run in and below `top` as soon as it is read.

    The readers are daemon threads and no executor's: one that is stuck on a dead mount holds up neither the
    others nor the end of the process.
    """
    runs = list(find_runs(Path(top).resolve()))
    waiting, found = iter(runs), SimpleQueue[RunStatus | BaseException]()
    look, one_at_a_time = cache(candidates), Lock()

    def seen() -> list[ForeignProcess]:
        """The processes that may be trainings, looked at once for all runs."""
        with one_at_a_time:
            return look()

    def read() -> None:
        for run in waiting:
            try:
                found.put(read_status(run, foreign=seen))
            except BaseException as error:
                found.put(error)

    for _ in range(min(READERS, len(runs))):
        Thread(target=read, name="nantui-fleet", daemon=True).start()
    for _ in runs:
        if isinstance(one := found.get(), BaseException):
            raise one
        yield one
