"""What the state of a run means for its keys: why something cannot be done right now, and when to raise the
alarm: an incident that ruined or ended something, or a training that died, and is neither recovered nor
acknowledged.
"""

from __future__ import annotations

from itertools import takewhile

from nantui.run import status as run_status
from nantui.run.events import AttemptEnded, Incident, Lost, RollbackDone, UndoDone, newest, of_kind
from nantui.run.incidents import ENDED
from nantui.run.journal import newest_in_force, not_taken_back
from nantui.ui.model.snapshot import RunSnapshot

CHANGES_IT = frozenset({"start", "stop", "kill", "rollback", "recover", "undo"})
"""Never while a run is watched read-only."""
ON_A_RUN = CHANGES_IT | {"acknowledge", "log", "zoom"}
FIRST = 0.5
"""The time of what has none: later than never acknowledged."""


def why_not(name: str, run: RunSnapshot, read_only: bool) -> str | None:
    """Return why the action `name` cannot be done now, None when it can."""
    state = run.status.state
    active = state in run_status.ACTIVE
    match name:
        case _ if name not in ON_A_RUN:
            return None
        case _ if not run.taken:
            return "the run has not been read yet"
        case _ if read_only and name in CHANGES_IT:
            return "read-only: open it without --read-only to act"
        case "start" if active:
            return f"it is already {state}"
        case "start" if state == run_status.FINISHED:
            return "it is finished; R goes back to an older epoch, or begins again"
        case "stop" | "kill" if state == run_status.FOREIGN and not run.status.pids:
            return run.status.text
        case "stop" | "kill" if not active and not run.status.pids:
            return f"nothing is running: it is {state}"
        case "rollback" if active:
            return f"it is {state}: stop it first with x, or press R to do it all in one"
        case "recover" if state == run_status.FOREIGN and run.status.pids:
            return "nantui did not start this training: stop it with x first, then R"
        case "recover" if state == run_status.RECOVERING:
            return "a recovery is under way"
        case "rollback" | "recover" if not run.checkpoints and not (name == "recover" and _diverged(run)):
            return "there is no checkpoint to go back to yet"
        case "undo" if active:
            return f"it is {state}: stop it first with x"
        case "undo" if newest_in_force(run.journal) is None:
            return "there is no rollback, resume or phase to undo"
        case "acknowledge" if open_alarm(run, 0.0) is None:
            return "there is no alarm"
        case "log" if run.log_path is None:
            return "no output: this run was not started by nantui"
        case "zoom" if not run.rows and not run.steps.columns:
            return "there is no curve yet"
    return None


def open_alarm(snapshot: RunSnapshot, acknowledged: float) -> Incident | None:
    """Return the incident since the last recovery that stands which ended the training, else the first; only
    of those that are newer than `acknowledged` (s since the epoch).

    A step that was skipped cost one step and ruined nothing: it stands in the timeline and on the curves,
    and raises no alarm. The worker's own words come a moment before the supervisor has put them into the
    journal.
    """
    stands, ended = not_taken_back(snapshot.journal), newest(snapshot.journal, RollbackDone, UndoDone)
    recovered = newest(stands, RollbackDone)
    since = [*takewhile(lambda event: event is not recovered, reversed(stands))][::-1]
    seen = (*since, *(event for event in snapshot.events if ended is None or event.t > ended.t))
    found = [one for one in of_kind(seen, Incident) if not one.harmless and one.t > acknowledged]
    if found:
        return next((one for one in found if one.action == ENDED), found[0])
    return _from_results(snapshot, acknowledged) or _from_state(snapshot, acknowledged)


def _diverged(run: RunSnapshot) -> bool:
    """Tell whether the alarm is about the numbers: such a training can begin again with other settings."""
    alarm = open_alarm(run, 0.0)
    return alarm is not None and alarm.incident not in (run_status.FAILED, run_status.LOST)


def _from_state(snapshot: RunSnapshot, acknowledged: float) -> Incident | None:
    """A training that nobody ended and that has not finished."""
    status = snapshot.status
    if status.state not in (run_status.FAILED, run_status.LOST):
        return None
    end = newest(snapshot.journal, AttemptEnded, Lost)
    when = end.t if end is not None else FIRST
    told = Incident(t=when, incident=status.state, action=status.text, epoch=status.epoch, step=status.step)
    return told if when > acknowledged else None


def _from_results(snapshot: RunSnapshot, acknowledged: float) -> Incident | None:
    """Without a guard there are only the epochs' losses: the first current epoch that is not finite."""
    if acknowledged or of_kind(snapshot.journal, Incident):
        return None
    before = snapshot.phases.begins.get(snapshot.phases.now, 0)
    for row in snapshot.rows:
        if not row.superseded and not row.finite and row.epoch > before:
            return Incident(t=FIRST, incident="nan_loss", epoch=row.epoch - before)
    return None
