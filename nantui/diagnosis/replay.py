"""The replay: for a run that nobody watched, see the trouble happen again with the guard looking.

The last clean checkpoint is trained on in a helper process and a directory of its own, up to the epoch of
the trouble. Batches come in another order than then, so that it may not happen again; that says something
too.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from nantui import entry_points
from nantui.diagnosis.causes import Diagnosis, advise, diagnose
from nantui.diagnosis.evidence import CHECKPOINT, HARDWARE, SINGULAR, Evidence
from nantui.diagnosis.facts import gather_facts
from nantui.errors import FAILED, NO, UserError
from nantui.machine.gpus import words_of
from nantui.machine.training_python import training_python
from nantui.paths import interpreter
from nantui.recovery.agreement import refuse_code
from nantui.recovery.plan import make_plan
from nantui.recovery.rollback import refuse_written
from nantui.run.atomic_files import write_json
from nantui.run.attempts import DIVERGED, STOPPED, RankExit, read_exits
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord, read_run


@dataclass(frozen=True)
class Replay:
    """What is to be repeated: from `checkpoint`, whose work ends with epoch `done`, to epoch `until`."""

    run: Path
    checkpoint: Path
    done: int
    until: int
    train: dict[str, object]
    hours: float

    @property
    def text(self) -> str:
        """Return what will be done, in one line."""
        first = self.done + 1
        epochs = f"epoch {first}" if self.until == first else f"epochs {first} to {self.until}"
        time = f", about {self.hours:.2g} hours" if self.hours == self.hours else ""
        return f"repeat {epochs} from {self.checkpoint.name} under the guard, beside the run{time}"


def plan_replay(run: Path, allow: Collection[str] = ()) -> Replay:
    """Return what a replay of the run would do. `allow` are names whose code loading may run.

    Of a run that nobody watched and that ended early, it is the epoch in which it ended. A checkpoint that
    needs a repair will do: the helper rebases it, which rebuilds its optimizer state.
    Raises UserError when the run still trains, shows no trouble, or has no clean checkpoint from before it.
    """
    record = read_run(run)
    plan = make_plan(record, propose=False)
    refuse_written(record.layout)
    bad = plan.trouble.epoch if plan.trouble else gather_facts(record).broke_off
    if bad is None:
        raise UserError(f"{plan.run}: no trouble is recorded; there is nothing to repeat", NO)
    restore = next((one for one in plan.candidates if one.usable and one.point is None), None)
    if restore is None or restore.work is None or not restore.verdict.usable:
        raise UserError(f"{plan.run}: no clean checkpoint from before the trouble can be resumed", NO)
    refuse_code(restore.verdict, restore.name, allow)
    until = max(bad, restore.work + 1)
    hours = (until - restore.work) * plan.costs.seconds_per_epoch / 3600
    devices, batch = words_of(plan.in_effect.get("device")), plan.in_effect.get("batch")
    train: dict[str, object] = {}
    if len(devices) > 1:  # a run of several devices is repeated on its first
        smaller = {"batch": max(batch // len(devices), 1)} if isinstance(batch, int) and batch > 0 else {}
        train = {"device": devices[0], **smaller}
    return Replay(plan.run, restore.path, restore.work, until, train, hours)


def replay(plan: Replay, place: Path, python: str | None = None) -> Diagnosis:
    """Carry the replay out in the new directory `place`; returns the diagnosis of what was seen.

    Raises UserError when the helper could not train; its words are in `place/replay.log`.
    """
    place.mkdir(parents=True, exist_ok=True)
    scratch, log = place / "run", place / "replay.log"
    request = {"checkpoint": str(plan.checkpoint), "place": os.path.abspath(scratch), "until": plan.until}
    write_json(place / "request.json", {**request, "train": plan.train})
    where, nothing = interpreter(training_python(python)), subprocess.DEVNULL
    argv = [where, "-m", entry_points.REPLAY, os.path.abspath(place / "request.json")]
    with log.open("wb") as output:
        subprocess.run(argv, cwd="/", stdin=nothing, stdout=output, stderr=subprocess.STDOUT)
    ending = next(iter(read_exits(RunLayout(scratch), 1)), None)
    if ending is None or ending.outcome not in (DIVERGED, STOPPED):
        words = log.read_text(errors="replace").strip().splitlines() or ["killed"]
        why, kept = ending.text if ending else words[-1], f"all of its words stay in {log.name}"
        raise UserError(f"the replay failed: {why}; with --keep DIR {kept}", FAILED)
    if ending.outcome == STOPPED:
        evidence = not_again(plan, ending)
        found = diagnose(plan.run, more=[evidence])
        said = () if found.incident else (f"the replay: {evidence.text}",)  # that is all there is
        return replace(found, replay=False, unknown=(*found.unknown, *said))
    seen = diagnose(scratch, costs=False)
    assert seen.facts is not None, "every diagnosis has them"
    facts = replace(seen.facts, record=RunRecord(RunLayout(plan.run)))  # what remedies cost is planned there
    return replace(seen, run=plan.run, watched=False, advice=advise(facts, seen.causes), facts=facts)


def not_again(plan: Replay, ending: RankExit) -> Evidence:
    """Return what it says that nothing happened the second time."""
    text = f"{ending.text}: from a clean checkpoint the same images trained well, in another order"
    return Evidence("replay", text, "replay", {HARDWARE: 3.0, CHECKPOINT: 3.0, SINGULAR: 0.5})
