"""The recoveries of a run so far: what each restored and changed, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nantui.run import events as kinds
from nantui.run.attempts import DIVERGED, FAILED
from nantui.run.endings import CUDA_OOM, HOST_OOM, cause_of
from nantui.run.events import newest
from nantui.run.record import RunRecord

QUARANTINE = "quarantine"
BAD_ENDS = (DIVERGED, FAILED)


@dataclass(frozen=True)
class Earlier:
    """An earlier recovery.

    `restore_point` is relative to the run, `work` its epoch from 1 (None: plan B); `failed_at` is the epoch,
    from 1, in which the attempt after it got into trouble, None when it did not; `out_of_memory` tells that
    it ended for that reason.
    """

    id: str
    restore_point: str
    settings: Mapping[str, object]
    failed_at: int | None = None
    text: str = ""
    work: int | None = None
    presets: tuple[str, ...] = ()
    out_of_memory: bool = False


def earlier_recoveries(record: RunRecord) -> list[Earlier]:
    """Return the recoveries that are in force, oldest first; each phase of a plan has its own."""
    found: list[Earlier] = []
    phases: dict[str, list[Earlier]] = {}
    for event in record.journal:
        if isinstance(event, kinds.RollbackBegun):
            presets = (*event.presets, *((QUARANTINE,) if event.images else ()))
            one = Earlier(
                event.id, str(event.restore_point), event.changed, work=event.epoch, presets=presets
            )
            found = [*_in_trouble(found, event.incident_epoch, "trouble came back"), one]
        elif isinstance(event, kinds.PhaseDone):
            phases[event.id], found = found, []
        elif isinstance(event, kinds.UndoDone) and event.of in phases:
            found = phases[event.of]
        elif isinstance(event, (kinds.RollbackReverted, kinds.UndoDone)):
            gone = event.of if isinstance(event, kinds.UndoDone) else event.id
            found = [one for one in found if one.id != gone]
        elif isinstance(event, kinds.AttemptEnded) and event.outcome in BAD_ENDS:
            memory = cause_of(event).kind in {CUDA_OOM, HOST_OOM}
            found = _in_trouble(found, event.epoch, event.text, memory)
    return found


def settings_in_force(record: RunRecord) -> dict[str, object]:
    """Return what the recoveries of this run have changed so far.

    An older restore point was saved before some of them; what was decided stays in force all the same.
    """
    return {name: value for one in earlier_recoveries(record) for name, value in one.settings.items()}


def repeats(earlier: Sequence[Earlier], restore_point: str, settings: Mapping[str, object]) -> str:
    """Return a warning when the same restore point with the same settings has failed before, else ""."""
    for one in earlier:
        same = one.restore_point == restore_point and dict(one.settings) == dict(settings)
        if one.failed_at is not None and same:
            return f"the same restore point with the same settings failed before, in epoch {one.failed_at}"
    return ""


def newest_end(record: RunRecord) -> kinds.AttemptEnded | None:
    """Return how the newest attempt ended, None where something was done since, and while it goes on."""
    latest = newest(
        record.journal, kinds.AttemptStarted, kinds.AttemptEnded, kinds.RollbackDone, kinds.PhaseDone
    )
    return latest if isinstance(latest, kinds.AttemptEnded) else None


def goes_on(record: RunRecord) -> bool:
    """Tell whether the newest attempt has not ended, by the journal."""
    latest = newest(record.journal, kinds.AttemptStarted, kinds.AttemptEnded, kinds.Lost, kinds.RollbackDone)
    return isinstance(latest, kinds.AttemptStarted)


def ran_out_of_memory(record: RunRecord) -> bool:
    """Tell whether the newest attempt failed for lack of GPU memory, which a smaller batch mends."""
    ended = newest_end(record)
    return ended is not None and ended.outcome == FAILED and cause_of(ended).kind == CUDA_OOM


def _in_trouble(found: list[Earlier], epoch: int | None, text: str, memory: bool = False) -> list[Earlier]:
    if not found or found[-1].failed_at is not None or epoch is None:
        return found
    return [*found[:-1], replace(found[-1], failed_at=epoch, text=text, out_of_memory=memory)]
