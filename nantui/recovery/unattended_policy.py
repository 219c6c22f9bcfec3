"""Unattended: what the supervisor does after an attempt has ended. Needs no terminal.

A training that goes on is never touched. docs/unattended.md has what answers which end, and how often;
docs/recovery.md the ladder, which is climbed within a budget of recoveries that did not get past the trouble.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nantui.machine.gpus import device_count, has_bf16, words_of
from nantui.recovery.history import BAD_ENDS, QUARANTINE, Earlier, earlier_recoveries, newest_end
from nantui.recovery.ladder import AGAIN, Ladder, load_ladder, next_step, proven
from nantui.recovery.plan_inputs import PlanInputs, gather_inputs
from nantui.recovery.restore_points import BEST, choose, ends_before
from nantui.recovery.resume_settings import settings_in_effect
from nantui.recovery.run_facts import gpus_of, measured
from nantui.run import endings
from nantui.run.attempts import FINISHED, read_attempt, read_exits
from nantui.run.commands import POLICY
from nantui.run.documents import JsonObject
from nantui.run.endings import DIVERGED, ENDINGS, MOST_IN_A_ROW, Cause, cause_of
from nantui.run.events import AttemptEnded, CommandReceived, PhaseDone, Saved, of_kind
from nantui.run.growing_files import tail_text
from nantui.run.layout import RunLayout
from nantui.run.plan import place_of
from nantui.run.record import RunRecord, read_run
from nantui.run.status import LOST
from nantui.settings.gpu_memory import largest_batch
from nantui.settings.presets import load_presets
from nantui.settings.values import is_number

RECOVER, RESUME, GIVE_UP, TELL, NOTHING = "recover", "resume", "give up", "tell", "nothing"
BEGINS = frozenset({"start", "resume", "recover"})
WHOLE_LOG = 1 << 22
SAVES_NEED = 3
"""How many of the largest checkpoint an epoch may write: last.pt, best.pt and one that is being written."""
_HALVED = re.compile(r"Reducing to batch=(\d+) and retrying")  # Ultralytics, engine/trainer.py
NEARLY = 0.05
"""By this share a step may become larger or smaller, rather than a batch much smaller than a GPU holds."""
_OF_A_GPU = frozenset({endings.CUDA_ERROR, endings.COLLECTIVE, endings.HUNG})
_SAYS = re.compile(r"(CUDA|cuda|cuDNN) (error|failure)(?!.*device-side assert)|CU(BLAS|DNN)_STATUS")
"""Not an assertion in a kernel, which data or code set off on any GPU."""
_RANK = re.compile(r"^\[rank(\d+)\]:?(.*)", re.MULTILINE)
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
        return Decision(NOTHING if cause.kind == endings.KILLED else GIVE_UP, f"{cause.text}: {kind.remedy}")
    if row[cause.kind] > kind.most or row.total() > MOST_IN_A_ROW:
        return Decision(GIVE_UP, f"{cause.text}; {row.total() - 1} attempts in a row got no epoch farther")
    in_effect = settings_in_effect(facts, choose(facts.candidates))
    act = _MORE.get(cause.kind)
    more, words = act(facts, in_effect, cause) if act else ({}, "resume")
    if more and "device" in more.get("set", {}):  # not every point fits another number of ranks
        facts = gather_inputs(facts.record, more["set"])
    point = choose(facts.candidates)
    if more is None:
        return Decision(GIVE_UP, f"{cause.text}; {words}")
    why = f"{cause.text}; {words}"
    # Its row of results.csv comes before an epoch's checkpoint: between the two, the first one has neither.
    if point is None and len(facts.record.epochs) > (0 if facts.candidates else 1):
        return Decision(GIVE_UP, f"{cause.text}; no clean checkpoint is left")
    if point is None:
        return Decision(RECOVER, f"{why}, from the beginning", {**more, "presets": [], "force_restart": True})
    if facts.trouble is None and (point.point or not point.name.startswith(("epoch", BEST))):
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
    reported = record.newest.in_effect
    values = [in_effect.get("batch"), reported.values.get("batch") if reported else None]
    log = tail_text(record.layout.attempt_log(record.newest.number), WHOLE_LOG)
    values += map(int, _HALVED.findall(log))
    return int(min((one for one in values if is_number(one) and one >= 1), default=0))


def _fewer_workers(facts: PlanInputs, in_effect: Mapping[str, Any], cause: Cause) -> More:
    if cause.kind == endings.HOST_OOM and in_effect.get("cache") in (True, "ram", "True"):
        return {"set": {"cache": False}}, "cache=ram becomes cache=False"
    reported = facts.record.newest.in_effect
    workers = reported.values.get("workers") if reported else in_effect.get("workers")
    if is_number(workers) and workers >= 1:
        return {"set": {"workers": int(workers) // 2}}, f"workers {int(workers)} becomes {int(workers) // 2}"
    return (
        None,
        "no worker to do without: cache=False, a smaller batch, or a container with --shm-size=8g may help",
    )


def _without_gpu(facts: PlanInputs, in_effect: Mapping[str, Any], cause: Cause) -> More:
    """Leave out the GPU that keeps failing, where that was allowed and another is left."""
    spec, device = facts.spec, words_of(facts.spec.train.get("device") if facts.spec else None)
    failing = failing_gpu(facts.record, len(device))
    if spec is None or spec.kind != "train" or failing is None:
        return {}, "resume"
    place, name = failing
    left = [*device[:place], *device[place + 1 :]]
    if not left or not spec.ours.get("leave_out_gpu"):
        other = "leave_out_gpu=True would leave out" if left else "there is no other than"
        return {}, f"resume; {other} {name}"
    fitting = on_fewer(len(device), len(left), batch_tried(facts.record, in_effect), in_effect)
    changes = {"device": ",".join(left), **fitting}
    words = ", ".join(f"{setting}={value}" for setting, value in changes.items())
    return {"set": changes}, f"resume without {name}, which keeps failing: {words}"


def failing_gpu(record: RunRecord, devices: int) -> tuple[int, str] | None:
    """Return which of its `devices` (from 0, and in words) the newest end of a run names, where it is gone or
    was named before since a person began it; else None.
    """
    named: list[tuple[int, str] | None] = []
    for event in record.journal:
        if isinstance(event, CommandReceived) and event.by != POLICY and event.command.kind in BEGINS:
            named = []
        elif isinstance(event, AttemptEnded):
            found = _named(record.layout, event, devices)
            gone = found is not None and f"{found[1]} is gone" in event.evidence
            named += [found, found] if gone else [found]
    return named[-1] if named[:-1].count(named[-1]) else None


def _named(layout: RunLayout, ended: AttemptEnded, devices: int) -> tuple[int, str] | None:
    """Return the GPU whose PCI address the evidence has, else that of the only rank (they are in the order of
    `device`) that tells of a CUDA error: who has only lost the others names nobody.
    """
    attempt, cause = read_attempt(layout, ended.attempt or 0), cause_of(ended)
    if attempt is None or cause.kind not in _OF_A_GPU or (attempt.devices, attempt.nnodes) != (devices, 1):
        return None
    gpus = [f"GPU {address}" for address in attempt.marks.get("gpus") or ()]
    names = gpus if len(gpus) == devices else [f"the GPU of rank {rank}" for rank in range(devices)]
    places = {place for place, name in enumerate(names) if name in cause.evidence}
    if not places:
        said = [(one.rank, one.text) for one in read_exits(layout, attempt.attempt)]
        said += _RANK.findall(tail_text(layout.attempt_log(attempt.attempt)))
        places = {int(rank) for rank, text in said if _SAYS.search(text)}
    return next(((place, names[place]) for place in places if len(places) == 1 and place < devices), None)


def on_fewer(devices: int, fewer: int, batch: int, in_effect: Mapping[str, Any]) -> dict[str, object]:
    """Return `batch`, and `nbs` with `weight_decay` where it takes them, for `fewer` devices: no more images
    on each, and a step of as many in all as now, as near as a multiple of `fewer` comes ({}: not known). It
    decays by weight_decay times its images over nbs (`BaseTrainer._build_train_pipeline`).
    """
    if batch < devices:
        return {}
    nbs, step = in_effect["nbs"], _step(batch, in_effect["nbs"])
    kept = {} if step == nbs else {"nbs": step, "weight_decay": in_effect["weight_decay"] * step / nbs}

    def off(one: int) -> tuple[float, int]:
        return max(abs(_step(one, step) - step) - NEARLY * step, 0.0), -one

    return {"batch": min(range(fewer, batch // devices * fewer + 1, fewer), key=off), **kept}


def _step(batch: int, nbs: int) -> int:
    return batch * max(round(nbs / batch), 1)


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
    path = named[0] if named else str(in_effect.get("data") or facts.record.run)
    return {"until_there": path}, f"resume once {path} is there"


_MORE: Mapping[str, Callable[[PlanInputs, Mapping[str, Any], Cause], More]] = {
    endings.CUDA_OOM: _smaller_batch, endings.HOST_OOM: _fewer_workers, endings.LOADER: _fewer_workers,
    endings.DISK_FULL: _after_room, endings.DATA_GONE: _after_data,
    **dict.fromkeys(_OF_A_GPU, _without_gpu),
}  # fmt: skip


BY_THE_LADDER = frozenset({DIVERGED, endings.EXCEPTION})
"""What ends an attempt that NaN may have brought down."""


def decide(run: Path) -> Decision:
    """Return the next step for the run, judged from its files alone. Raises UserError for no run."""
    record, ladder, bad = read_run(run), load_ladder(), (*BAD_ENDS, FINISHED, LOST)
    ended = newest_end(record)
    cause = cause_of(ended) if ended is not None else Cause()
    if ended is None or (ended.outcome not in bad and cause.kind != endings.PREEMPTED):
        return Decision(NOTHING, "the newest attempt did not end badly")
    facts, earlier = gather_inputs(record, {}), earlier_recoveries(record)
    if ended.outcome == FINISHED:
        return after_finish(facts, earlier, ladder)
    if cause.kind not in BY_THE_LADDER or (facts.trouble is None and cause.kind != DIVERGED):
        return remedy(facts, cause)
    if facts.trouble is None:
        return Decision(GIVE_UP, f"it failed for another reason than NaN: {ended.text or 'unknown'}")
    if spent(earlier, ladder) >= ladder.max_recoveries:
        return Decision(GIVE_UP, f"{ladder.max_recoveries} recoveries did not get past the trouble")
    return climb(facts, earlier, ladder)


def after_finish(facts: PlanInputs, earlier: Sequence[Earlier], ladder: Ladder) -> Decision:
    """Return what becomes of a training that finished: nothing, unless it is proven that it was ruined.

    Then it is taken up from before that, or, where that cannot be, it is told.
    """
    place = place_of(facts.spec.plan) if facts.spec else None
    if facts.ruin is None or (place is not None and place.number < place.of):
        return Decision(NOTHING, "it finished")
    if spent(earlier, ladder) >= ladder.max_recoveries:
        return Decision(TELL, f"{facts.ruin.text}; {ladder.max_recoveries} recoveries did not get past it")
    if choose(facts.candidates, facts.lost_since or 0) is None:
        return Decision(TELL, f"{facts.ruin.text}; no checkpoint from before can be resumed, best.pt is kept")
    decision = climb(facts, earlier, ladder)
    return decision if decision.action == RECOVER else replace(decision, action=TELL)


def climb(facts: PlanInputs, earlier: Sequence[Earlier], ladder: Ladder) -> Decision:
    """Return the next rung from a restore point that has not just failed, nor holds anything of a ruin."""
    ruin, last, older = facts.ruin, earlier[-1] if earlier else None, ""
    usable = [one for one in facts.candidates if one.usable]
    if (lost := facts.lost_since) is not None:
        usable = [one for one in usable if ends_before(one, lost)]
    if last and last.failed_at is not None and last.failed_at - (last.work or 0) <= ladder.probation_epochs:
        usable = [one for one in usable if last.work is None or (one.work or 0) < last.work]
        older = " (an older one: the last failed within its probation)"
    if not usable and ruin is not None:
        return Decision(GIVE_UP, f"{ruin.text}; no older checkpoint from before can be resumed")
    if not usable and any(AGAIN in one.presets for one in earlier):
        return Decision(GIVE_UP, "no older clean checkpoint is left, and beginning again was tried")
    if not usable:
        options: JsonObject = {"presets": [AGAIN], "force_restart": True}
        return Decision(RECOVER, "no clean checkpoint is left: begin again", options)
    restore = usable[0]
    in_effect = settings_in_effect(facts, restore)
    presets = load_presets(facts.schema, facts.record.run)
    proof = proven(facts.record, facts.reason_for(restore))
    bf16 = has_bf16(gpus_of(in_effect.get("device")))
    step = next_step(ladder, earlier, proof, presets, in_effect, facts.schema.fields, bf16=bf16)
    if step is None:
        return Decision(GIVE_UP, "the ladder is at its end: every step was tried or would change nothing")
    options = {"to": restore.name, "presets": [step] if step != QUARANTINE else []}
    if in_effect.get("guard") != "protect":
        options["set"] = {"guard": "protect"}
    images = proof.images if step == QUARANTINE else ()
    why = f"{step}, from {restore.name}{older}" + (f": {ruin.text}" if ruin else "")
    return Decision(RECOVER, why, options, images, asdict(ruin) if ruin else None)


def spent(earlier: Sequence[Earlier], ladder: Ladder) -> int:
    """Return the recoveries since the last one that got past the trouble before it, with its probation."""
    count, farthest = 0, 0
    for one in earlier:
        if one.out_of_memory:
            continue
        count += 1
        if one.failed_at is not None and farthest and one.failed_at > farthest + ladder.probation_epochs:
            count = 0
        farthest = max(farthest, one.failed_at or 0)
    return count
