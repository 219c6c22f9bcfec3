"""Why something cannot be done to a run right now: a key that cannot act says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nantui.recovery.history import newest_in_force
from nantui.run import status as run_status
from nantui.ui.model.alarms import open_alarm
from nantui.ui.model.snapshot import RunSnapshot

CHANGES_IT = frozenset({"start", "stop", "kill", "rollback", "recover", "undo"})
"""Never while a run is watched read-only."""


def _start(snapshot: RunSnapshot) -> str | None:
    state = snapshot.status.state
    if state in run_status.ACTIVE:
        return f"it is already {state}"
    if state == run_status.FINISHED:
        return "the training is finished; roll back with r to train on from an older epoch"
    return None


def _stop(snapshot: RunSnapshot) -> str | None:
    stopping = snapshot.status.state == run_status.STOPPING
    return "it is stopping already; X kills it" if stopping else _kill(snapshot)


def _kill(snapshot: RunSnapshot) -> str | None:
    state = snapshot.status.state
    return (
        None if state in run_status.ACTIVE or snapshot.status.pids else f"nothing is running: it is {state}"
    )


def _rollback(snapshot: RunSnapshot) -> str | None:
    if snapshot.status.state in run_status.ACTIVE:
        return f"it is {snapshot.status.state}: stop it first with x, or press R to do it all in one"
    return _without_checkpoints(snapshot)


def _recover(snapshot: RunSnapshot) -> str | None:
    under_way = snapshot.status.state == run_status.RECOVERING
    return "a recovery is under way" if under_way else _without_checkpoints(snapshot)


def _without_checkpoints(snapshot: RunSnapshot) -> str | None:
    return None if snapshot.checkpoints else "there is no checkpoint to go back to yet"


def _undo(snapshot: RunSnapshot) -> str | None:
    if snapshot.status.state in run_status.ACTIVE:
        return f"it is {snapshot.status.state}: stop it first with x"
    return None if newest_in_force(snapshot.journal) else "there is no rollback to undo"


def _acknowledge(snapshot: RunSnapshot) -> str | None:
    return None if open_alarm(snapshot, 0.0) else "there is no alarm"


def _zoom(snapshot: RunSnapshot) -> str | None:
    return None if snapshot.rows or snapshot.steps.columns else "there is no curve yet"


REASONS: Mapping[str, Callable[[RunSnapshot], str | None]] = {
    "start": _start,
    "stop": _stop,
    "kill": _kill,
    "rollback": _rollback,
    "recover": _recover,
    "undo": _undo,
    "acknowledge": _acknowledge,
    "log": lambda run: None if run.log_path else "no output: this run was not started by nantui",
    "zoom": _zoom,
}


def why_not(name: str, snapshot: RunSnapshot | None, read_only: bool) -> str | None:
    """Return why the action `name` cannot be done now, None when it can."""
    if name not in REASONS:
        return None
    if snapshot is None or not snapshot.taken:
        return "the run has not been read yet"
    if read_only and name in CHANGES_IT:
        return "read-only: open it without --read-only to act"
    return REASONS[name](snapshot)
