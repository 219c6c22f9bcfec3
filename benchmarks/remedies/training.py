"""The trainings of a cause and seed: a clean beginning, its end without the fault, the break, the recoveries.

Everything is the product's own: attempts and their worker, what the supervisor keeps of them in the journal,
the rollback with the settings written into the checkpoint. Only the processes are missing: the rebase, a
process of its own elsewhere, is called here.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.healthy.records import Record, short
from benchmarks.remedies.causes import BASES, CLEAN, OURS, Cause
from benchmarks.remedies.data import data_set
from nantui.recovery.plan import Plan
from nantui.recovery.restore_points import choose
from nantui.run.events import Autopsy, Incident, RewindDone, RollbackBegun, Warned, newest, of_kind
from nantui.run.incidents import SUSPICIONS
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import current, read_results
from nantui.run.spec import Spec, with_settings, write_spec
from nantui.settings.values import changed

PREFIX, CONTROL, BREAK = "beginning", "control", "break"
SKIP, REWIND, LEAVE_OUT = "skip and go on", "rewind", "leave images out"
PROPOSED = "as proposed"
BF16, FP32 = "bf16", "fp32"
PERSON_STEPS = 10
"""Steps after an incident until somebody has pressed R, where the guard has not ended the training."""
SEEN_WITHIN_S = 30.0
REWARMUP, CLIP, PROBATION_EPOCHS = 32, 10.0, 3
CALMER = {
    "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 10.0, "translate": 0.1, "scale": 0.5, "shear": 2.0,
    "perspective": 0.0, "flipud": 0.0, "mosaic": 0.8, "mixup": 0.0, "copy_paste": 0.0,
}  # fmt: skip
"""What nan-safe says about augmentation."""
MOST = 30
ALARMS = SUSPICIONS | {"saved_beyond_half"}
Options = dict[str, Any]
Now, Images = Mapping[str, Any], tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where the data sets lie, and the runs of one seed."""

    shared: Path
    runs: Path

    def run(self, *words: str) -> Path:
        return self.runs / "-".join(word.replace(" ", "_") for word in words)


# What each remedy asks for, of the settings in effect, of a clip value, of the images that were named: the
# options of the command `recover`. None where it does not apply.


def rate(factor: float, now: Now, clip: float, images: Images) -> Options:
    return {"set": {"lr0": float(f"{now['lr0'] * factor:.6g}")}}


def calmer(now: Now, clip: float, images: Images) -> Options | None:
    less = {name: most for name, most in CALMER.items() if now.get(name, 0.0) > most}
    return {"set": less} if less else None


def preset(name: str, now: Now, clip: float, images: Images) -> Options:
    return {"presets": [name], **({"force_restart": True} if name == "restart" else {})}


def setting(name: str, value: object, now: Now, clip: float, images: Images) -> Options:
    return {"set": {name: value}}


BACK = "go back, nothing changed"
REMEDIES: Mapping[str, Callable[[Now, float, Images], Options | None]] = {
    BACK: lambda now, clip, images: {},
    "re-warm-up": partial(setting, "rewarmup", REWARMUP),
    "clip": lambda now, clip, images: {"set": {"grad_clip": clip}},
    "rate x0.5": partial(rate, 0.5),
    "rate x0.1": partial(rate, 0.1),
    "gentle-lr": partial(preset, "gentle-lr"),
    "SGD": partial(preset, "conservative"),
    "calmer augmentation": calmer,
    LEAVE_OUT: lambda now, clip, images: {"images": list(images)} if images else None,
    BF16: lambda now, clip, images: {"presets": ["bf16"]} if now.get("amp") else None,
    FP32: lambda now, clip, images: {"set": {"amp": False}} if now.get("amp") else None,
    "plan A": partial(preset, "recover"),
    "plan B": partial(preset, "restart"),
    "nan-safe": partial(preset, "nan-safe"),
}
"""The recoveries, roughly from the smallest change to the largest."""


def beginning(base: str, seed: int, place: Place) -> Record:
    """Train what all trainings of a seed begin with, and stop there."""
    run = place.run(base, PREFIX)
    shutil.rmtree(run, ignore_errors=True)
    data, model = data_set(place.shared, seed)
    train = {**BASES[base][1], "data": str(data), "model": str(model), "seed": seed}
    _make(run, Spec(train, dict(OURS), sys.executable))
    ended = attempt(run, "start", stop_before=CLEAN)
    return {"outcome": ended, **results(run)}


def control(base: str, seed: int, place: Place) -> Record:
    """Train the beginning to its end, without any fault."""
    run = forked(place.run(base, PREFIX), place.run(base, CONTROL))
    return measured(run, partial(attempt, run, "resume", _left(run)))


def broken(cause: Cause, seed: int, place: Place) -> Record:
    """Break the training, until the guard ends it or a person does; says what is known of the cause then."""
    from nantui.diagnosis.causes import diagnose
    from nantui.recovery.ladder import proven
    from nantui.recovery.plan_inputs import gather_inputs

    run = _begun(cause, seed, place, BREAK)
    record = measured(run, partial(_go_on, run, cause, seed, place, until_incident=True))
    read = RunRecord(RunLayout(run))
    facts = gather_inputs(read, {})
    proof = proven(read, facts.reason_for(next(iter(facts.candidates), None)))
    ranked = diagnose(run, costs=False).causes
    return {
        **record, "signs": [_brief(one) for one in signs_of(read)[:3]],
        "proof": sorted(proof.causes), "images": list(proof.images),
        "autopsies": [one.cause for one in of_kind(read.journal, Autopsy)][:MOST],
        "said": [[one.cause, short(one.probability)] for one in ranked[:3]],
    }  # fmt: skip


def recovered(cause: Cause, seed: int, place: Place, remedy: str) -> Record:
    """Recover the broken training by one remedy and train it to the end."""
    from nantui.recovery.ladder import proven
    from nantui.recovery.plan import make_plan

    run = forked(place.run(cause.name, BREAK), place.run(cause.name, remedy))
    read = RunRecord(RunLayout(run))
    if not signs_of(read):
        return {"applies": False, "broke": False}
    plan = make_plan(run, propose=False)
    proof = proven(read, plan.reason)
    options = REMEDIES[remedy](plan.in_effect, CLIP, proof.images)
    if options is None:
        return {"applies": False}
    if plan.reason is None and "force_restart" not in options:
        options["to"] = before_the_sign(read, plan)
    return _carried_out(run, cause, seed, place, options)


def proposed(cause: Cause, seed: int, place: Place) -> Record:
    """Recover the broken training as `R` proposes it, and train it to the end."""
    from nantui.diagnosis.causes import named
    from nantui.recovery.plan import exactly, make_plan

    run = forked(place.run(cause.name, BREAK), place.run(cause.name, PROPOSED))
    plan = make_plan(run, propose=True, diagnosed=named(run))
    told = {"presets": list(plan.presets), "said": plan.measured}
    return {**told, **_carried_out(run, cause, seed, place, exactly(plan))}


def _carried_out(run: Path, cause: Cause, seed: int, place: Place, options: Options) -> Record:
    """Roll back with the options of the command `recover`, and train to the end."""
    from nantui.recovery.__main__ import act_rollback

    begun = time.monotonic()
    done = act_rollback({"run": str(run), "id": "remedy", "by": "benchmark", **options})
    rolled = time.monotonic() - begun
    told = newest(RunRecord(RunLayout(run)).journal, RollbackBegun)
    assert told is not None, "it was carried out"
    changes = changed(told.settings)
    if not changes and (options.get("set") or options.get("presets")):
        return {"applies": False}
    asked = {**done["asked"], **options.get("set", {})}
    mode = "restart" if options.get("force_restart") else "resume"
    again = partial(_attempt_of, run, cause, seed, place, mode, done["checkpoint"], asked, PROBATION_EPOCHS)
    kept = {"applies": True, "changes": changes, "restored": told.epoch, "rollback_s": short(rolled)}
    return {**kept, **measured(run, again)}


def signs_of(read: RunRecord) -> list[Incident | Warned]:
    """Return what a person acts on in the newest attempt: incidents, and warnings that are alarms."""
    seen = (one for one in read.newest.events() if isinstance(one, (Incident, Warned)))
    return [one for one in seen if isinstance(one, Incident) or one.warning in ALARMS]


def _brief(sign: Incident | Warned) -> list[Any]:
    kind, action = (sign.incident, sign.action) if isinstance(sign, Incident) else (sign.warning, "warned")
    return [kind, sign.epoch, sign.step, action]


def before_the_sign(read: RunRecord, plan: Plan) -> str:
    """Return the checkpoint that a person names where only finite numbers speak: the newest from before what
    was said, and from before the mAP50 fell below half of the best.
    """
    signs, best = [signs_of(read)[0].epoch or 0], 0.0
    for epoch, value in enumerate(results(read.run)["map50"], 1):
        best = max(best, float(value))
        signs += [epoch] if epoch > CLEAN and float(value) < best / 2 else []
    point = choose(plan.candidates, min(signs))
    assert point is not None, "the beginning has left some"
    return point.name


def gone_on(cause: Cause, seed: int, place: Place, remedy: str) -> Record:
    """Let the broken training go on under the guard alone, or going back in memory where it gives up."""
    run = _begun(cause, seed, place, remedy, auto=remedy == REWIND)
    return measured(run, partial(_go_on, run, cause, seed, place, until_incident=False))


def _begun(cause: Cause, seed: int, place: Place, name: str, auto: bool = False) -> Path:
    run = forked(place.run(cause.base, PREFIX), place.run(cause.name, name))
    layout = RunLayout(run)
    spec = RunRecord(layout).spec
    assert spec is not None
    write_spec(layout.spec, replace(spec, auto=auto, faults=cause.faults(seed)))
    return run


def _go_on(run: Path, cause: Cause, seed: int, place: Place, until_incident: bool) -> str:
    """Resume the beginning with the cause: its settings as a person's, written into the checkpoint."""
    from nantui.recovery.__main__ import act_rollback

    checkpoint, asked = _left(run), dict(cause.settings)
    if asked:
        options = {"to": Path(checkpoint).name, "set": asked}
        checkpoint = act_rollback({"run": str(run), "id": "cause", "by": "benchmark", **options})[
            "checkpoint"
        ]
    return _attempt_of(run, cause, seed, place, "resume", checkpoint, asked, 0, until_incident)


def _attempt_of(
    run: Path, cause: Cause, seed: int, place: Place, mode: str, checkpoint: str | None,
    asked: dict[str, Any], probation: int, until_incident: bool = False,
) -> str:  # fmt: skip
    data, _ = data_set(place.shared, seed)

    def install(trainer: Any) -> None:
        if cause.install is not None:
            cause.install(trainer, random.Random(seed), data)

    return attempt(run, mode, checkpoint, asked, probation, install, until_incident=until_incident)


def attempt(
    run: Path, mode: str, checkpoint: str | None = None, asked: dict[str, Any] | None = None,
    probation: int = 0, install: Callable[[Any], None] | None = None, *, stop_before: int = 0,
    until_incident: bool = False,
) -> str:  # fmt: skip
    """Carry the next attempt out in this process, and keep in the journal what a supervisor keeps of it.

    Returns how it ended.
    """
    from nantui.run.journal import Journal
    from nantui.supervisor.attempt_watch import Watch
    from nantui.supervisor.launch import new_attempt
    from nantui.supervisor.outcome import ending_of
    from nantui.worker import __main__ as worker
    from nantui.worker import ultralytics_api

    layout = RunLayout(run)
    spec = RunRecord(layout).spec
    assert spec is not None
    spec = with_settings(spec, asked or {})
    write_spec(layout.spec, spec)
    record, journal = new_attempt(layout, spec, mode, checkpoint, asked, probation), Journal(layout.journal)
    number = record.attempt
    journal.append(
        "attempt_started", by="benchmark", attempt=number, mode=mode, checkpoint=checkpoint, asked=asked or {}
    )
    load = ultralytics_api.load_model

    def loaded(*words: Any) -> Any:
        model = load(*words)
        if install:
            model.add_callback("on_pretrain_routine_end", install)
        if stop_before:
            model.add_callback(
                "on_train_epoch_start",
                lambda trainer: trainer.epoch == stop_before and _stop(trainer, layout, number),
            )
        if until_incident:
            model.add_callback("on_pretrain_routine_end", partial(_until_incident, layout, number))
        return model

    with ultralytics_api.replaced(ultralytics_api, "load_model", loaded):
        worker.main([str(run), f"{number:03d}"])
    for event, fields in Watch(layout, record).read():
        journal.append(event.kind, by="benchmark", **fields)
    ending = ending_of(layout, number)
    journal.append(
        "attempt_ended", by="benchmark", attempt=number, outcome=ending.outcome, epoch=ending.epoch,
        step=ending.step, text=ending.text, cause=ending.cause.kind, evidence=ending.cause.evidence,
    )  # fmt: skip
    return ending.outcome


def _stop(trainer: Any, layout: RunLayout, number: int) -> None:
    from nantui.run.atomic_files import write_json

    write_json(layout.stop_request(number), {"id": "benchmark", "t": time.time(), "by": "benchmark"})
    if not trainer.session.recorder.stop_requested.wait(SEEN_WITHIN_S):
        raise RuntimeError("the request to stop was not seen")


def _until_incident(layout: RunLayout, number: int, trainer: Any) -> None:
    """Stop the training some steps after its first incident, or a warning that a person acts on."""
    session, left = trainer.session, {"steps": -1}
    report, warn = session.report, session.warn

    def seen() -> None:
        left["steps"] = PERSON_STEPS if left["steps"] < 0 else left["steps"]

    def reported(incident: Any) -> None:
        report(incident)
        seen()

    def warned(kind: str, text: str, **evidence: Any) -> None:
        warn(kind, text, **evidence)
        if kind in ALARMS:
            seen()

    def count(trainer: Any) -> None:
        left["steps"] -= left["steps"] > 0
        if left["steps"] == 0:
            left["steps"] = sys.maxsize
            _stop(trainer, layout, number)

    session.report, session.warn = reported, warned
    trainer.add_callback("on_train_batch_start", count)


def measured(run: Path, train: Callable[[], str]) -> Record:
    """Return how an attempt ended, what it came to, and what it took."""
    wall, cpu = time.monotonic(), time.process_time()
    outcome = train()
    took = {"wall_s": short(time.monotonic() - wall), "cpu_s": short(time.process_time() - cpu)}
    trained = RunRecord(RunLayout(run)).newest
    events, rows = trained.events(), RunLayout(run).steps(trained.number)
    incidents = of_kind(events, Incident)
    return {
        "outcome": outcome,
        "n_incidents": len(incidents),
        "incidents": [_brief(one) for one in incidents[:MOST]],
        "rewinds": [[one.epoch, one.step] for one in of_kind(events, RewindDone)],
        "warnings": sorted({one.warning for one in of_kind(events, Warned)}),
        "steps": rows.read_bytes().count(b"\n") - 1 if rows.exists() else 0,
        **took,
        **results(run),
    }


def results(run: Path) -> Record:
    """Return mAP50 and mAP50-95 of every epoch in force."""
    rows = current(read_results(run / "results.csv"))
    names = {"map50": "metrics/mAP50(B)", "map": "metrics/mAP50-95(B)"}
    return {
        name: [short(row.values.get(column, float("nan"))) for row in rows] for name, column in names.items()
    }


def forked(source: Path, target: Path) -> Path:
    """Copy a run to go on from it in another way."""
    from nantui.run.binding import bind

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    bind(target)
    return target


def _make(run: Path, spec: Spec) -> None:
    from nantui.run.binding import bind

    run.mkdir(parents=True)
    write_spec(RunLayout(run).spec, replace(spec, created=time.time()))
    bind(run)


def _left(run: Path) -> str:
    """Return the checkpoint that the stopped beginning has left."""
    from nantui.run.attempts import read_exits

    found = next((one.checkpoint for one in read_exits(RunLayout(run), 1) if one.resumable), None)
    assert found is not None, "the beginning was stopped at a batch"
    return found


def rebased_here(request: dict[str, Any], python: str) -> dict[str, Any]:
    """Stand in for `rollback.run_rebase`: the same rebase, without starting Python and torch for it."""
    from nantui.worker.checkpoints.rebase import Request, rebase

    return json.loads(json.dumps({"ok": True, **rebase(Request(**request))}, default=str))
