"""What is done unattended about an end that is no divergence: resume with less, or wait first.

`nantui.run.endings` has the table. Each kind has a bound, all together have one, and both count only attempts
since the last one that got an epoch farther or that a person began.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nantui.machine.gpus import device_count
from nantui.recovery.plan_inputs import PlanInputs
from nantui.recovery.restore_points import BEST
from nantui.recovery.resume_settings import settings_in_effect
from nantui.recovery.run_facts import gpus_of, measured
from nantui.run.commands import POLICY
from nantui.run.endings import (
    CUDA_OOM,
    DATA_GONE,
    DISK_FULL,
    ENDINGS,
    HOST_OOM,
    KILLED,
    LOADER,
    MOST_IN_A_ROW,
    Cause,
    cause_of,
)
from nantui.run.events import AttemptEnded, CommandReceived, InEffect, PhaseDone, Saved, newest, of_kind
from nantui.run.growing_files import tail_text
from nantui.run.record import RunRecord
from nantui.settings.gpu_memory import largest_batch
from nantui.settings.values import is_number

RECOVER, RESUME, GIVE_UP, TELL, NOTHING = "recover", "resume", "give up", "tell", "nothing"
BEGINS = frozenset({"start", "resume", "recover"})
WHOLE_LOG = 1 << 22
SAVES_NEED = 3
"""How many of the largest checkpoint an epoch may write: last.pt, best.pt and one that is being written."""
_HALVED = re.compile(r"Reducing to batch=(\d+) and retrying")  # Ultralytics, engine/trainer.py
_PATH = re.compile(r"/[^\s'\":,()]+")


@dataclass(frozen=True)
class Decision:
    """What to do and why. `options` are those of the command `recover` or `resume`; `images` are to be left
    out first; `evidence` is what proves a ruin, where that is what it acts on.
    """

    action: str
    why: str
    options: dict[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    evidence: dict[str, Any] | None = None


def remedy(facts: PlanInputs, cause: Cause) -> Decision:
    """Return what to do about an end of a kind that has a remedy of its own."""
    kind, row = ENDINGS[cause.kind], in_a_row(facts.record)
    if not kind.most:
        return Decision(NOTHING if cause.kind == KILLED else GIVE_UP, f"{cause.text}: {kind.remedy}")
    if row[cause.kind] > kind.most or row.total() > MOST_IN_A_ROW:
        return Decision(GIVE_UP, f"{cause.text}; {row.total() - 1} attempts in a row got no epoch farther")
    usable = [one for one in facts.candidates if one.usable]
    point = usable[0] if usable else None
    in_effect = settings_in_effect(facts, point)
    more, words = _MORE.get(cause.kind, _nothing_more)(facts, in_effect, cause)
    if more is None:
        return Decision(GIVE_UP, f"{cause.text}; {words}")
    why = f"{cause.text}; {words}"
    if point is None and facts.reached.completed:
        return Decision(GIVE_UP, f"{cause.text}; no clean checkpoint is left")
    if point is None:
        return Decision(RECOVER, f"{why}, from the beginning", {**more, "presets": [], "force_restart": True})
    if facts.trouble is None and not point.name.startswith(("epoch", BEST)):
        return Decision(RESUME, why, more)
    return Decision(RECOVER, f"{why}, from {point.name}", {"to": point.name, "presets": [], **more})


def in_a_row(record: RunRecord) -> Counter[str]:
    """Return how often each kind has ended an attempt since the last that got an epoch farther."""
    counts, farthest = Counter[str](), 0
    for event in record.journal:
        if isinstance(event, PhaseDone):
            counts, farthest = Counter(), 0
        elif isinstance(event, CommandReceived) and event.by != POLICY and event.command.kind in BEGINS:
            counts = Counter()
        elif isinstance(event, AttemptEnded):
            if (event.epoch or 0) > farthest:
                counts, farthest = Counter(), event.epoch or 0
            counts[cause_of(event).kind] += 1
    return counts


More = tuple[dict[str, Any] | None, str]
"""Options of the command beside where it begins (None: nothing helps), and what they do, in words."""


def _nothing_more(facts: PlanInputs, in_effect: Mapping[str, Any], cause: Cause) -> More:
    return {}, "resume"


def _smaller_batch(facts: PlanInputs, in_effect: Mapping[str, Any], cause: Cause) -> More:
    """Take the largest batch below that is predicted to fit and divides nbs: gradients are accumulated over
    more batches then, and a step is made of as many images as before.
    """
    now, nbs = batch_tried(facts.record, in_effect), int(in_effect.get("nbs") or 64)
    devices = max(device_count(in_effect.get("device")), 1)
    smaller = [one for one in range(devices, now, devices) if nbs % one == 0 or one == devices]
    if not smaller:
        return None, f"batch={now} cannot be smaller"
    known = measured(facts.record, in_effect.get("device"), (), gpus_of(in_effect.get("device")))
    fits = largest_batch(known, {**in_effect, "batch": now}, in_effect) if known else now
    batch = max((one for one in smaller if one <= fits), default=smaller[0])
    return {"set": {"batch": batch}}, f"batch {now} becomes {batch} (nbs stays {nbs})"


def batch_tried(record: RunRecord, in_effect: Mapping[str, Any]) -> int:
    """Return the smallest batch that the newest attempt has tried, 0 where none is known: Ultralytics halves
    it by itself up to three times, in the first epoch after a start or resume on one device.
    """
    reported = newest(record.newest.events(), InEffect)
    values = [in_effect.get("batch"), reported.values.get("batch") if reported else None]
    log = tail_text(record.layout.attempt_log(record.newest.number), WHOLE_LOG)
    values += map(int, _HALVED.findall(log))
    return int(min((one for one in values if is_number(one) and one >= 1), default=0))


def _fewer_workers(facts: PlanInputs, in_effect: Mapping[str, Any], cause: Cause) -> More:
    if cause.kind == HOST_OOM and in_effect.get("cache") in (True, "ram", "True"):
        return {"set": {"cache": False}}, "cache=ram becomes cache=False"
    reported = newest(facts.record.newest.events(), InEffect)
    workers = reported.values.get("workers") if reported else in_effect.get("workers")
    if is_number(workers) and workers >= 1:
        return {"set": {"workers": int(workers) // 2}}, f"workers {int(workers)} becomes {int(workers) // 2}"
    return None, "no worker to do without: a smaller batch, or a container with --shm-size=8g, may help"


def _after_room(facts: PlanInputs, in_effect: Mapping[str, Any], cause: Cause) -> More:
    saved = [event for attempt in facts.record.attempts for event in of_kind(attempt.events(), Saved)]
    paths = [Path(path) for event in saved if event.by_the_clock for path in event.paths]
    clocked = {path.name for path in paths if path.name.startswith("epoch")}
    kept = next((one.name for one in facts.candidates if one.usable), "")
    old = [one.name for one in reversed(facts.candidates) if one.name in clocked and one.name != kept]
    need = SAVES_NEED * max((one.verdict.bytes for one in facts.candidates), default=0) + (1 << 24)
    words = f"resume once {need / 1e9:.2g} GB are free ({len(old)} old points may go)"
    return {"until_free": need, "thin": old}, words


def _after_data(facts: PlanInputs, in_effect: Mapping[str, Any], cause: Cause) -> More:
    named = _PATH.search(cause.evidence)
    path = named[0] if named else str(in_effect.get("data") or facts.layout.run)
    return {"until_there": path}, f"resume once {path} is there"


_MORE: Mapping[str, Callable[[PlanInputs, Mapping[str, Any], Cause], More]] = {
    CUDA_OOM: _smaller_batch, HOST_OOM: _fewer_workers, LOADER: _fewer_workers,
    DISK_FULL: _after_room, DATA_GONE: _after_data,
}  # fmt: skip
