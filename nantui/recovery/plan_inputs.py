"""What a plan is made from, gathered once: restore points, trouble, how far the run came, settings."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from nantui.checkpoint.catalog import POINT, Catalog
from nantui.checkpoint.verdict import Verdict
from nantui.machine.gpus import device_count
from nantui.recovery import restore_points
from nantui.recovery.history import goes_on
from nantui.recovery.run_facts import classes_of
from nantui.recovery.trouble import (
    Judgement,
    Ruin,
    Trouble,
    first_of,
    first_trouble,
    judge_numbers,
    judge_warnings,
    mosaic_closes,
    overflows,
    proven_ruin,
    validated_in_fp32,
)
from nantui.recovery.undo import COPIES
from nantui.run.journal import attempts_in_force
from nantui.run.points import StepPoint, differences, step_points
from nantui.run.record import Reached, RunRecord, in_full
from nantui.run.spec import OURS_DEFAULTS, Spec, read_args
from nantui.settings.schema import Schema
from nantui.settings.values import number

LOOKS, BETWEEN_LOOKS_S = 4, 0.2
"""How often a checkpoint that is being written is looked at: writing one takes less as a rule."""


@dataclass(frozen=True)
class PlanInputs:
    """A snapshot. `candidates` come best first; `asked` are the settings asked for by name, checked.

    `judgement` is where finite numbers say that the network was lost, `ruin` where they prove it;
    `overflowed` are the epochs whose validation was not finite though the network was sound.
    """

    record: RunRecord
    schema: Schema
    asked: Mapping[str, object]
    candidates: list[restore_points.Candidate]
    trouble: Trouble | None
    reached: Reached
    judgement: Judgement | None = None
    ruin: Ruin | None = None
    overflowed: tuple[int, ...] = ()

    @property
    def spec(self) -> Spec | None:
        """What the run is asked to train."""
        return self.record.spec

    @property
    def lost_since(self) -> int | None:
        """The epoch, from 1, from which on a ruined network is not gone back to; None for any other."""
        return min(one.epoch for one in (self.ruin, self.judgement) if one) if self.ruin else None

    def reason_for(self, restore: restore_points.Candidate | None) -> Trouble | Judgement | None:
        """Return the first sign of trouble, or the judgement where it goes back to before that."""
        judgement, trouble = self.judgement, self.trouble
        if judgement is None or (restore is not None and (restore.work or 0) >= judgement.epoch):
            return trouble
        return judgement if trouble is None or judgement.epoch < trouble.epoch else trouble


def gather_inputs(
    record: RunRecord, asked: Mapping[str, object], python: str | None = None, allow: Collection[str] = ()
) -> PlanInputs:
    """Return what a plan is made from; `allow` names code that loading a checkpoint may run.

    Raises UserError for an unknown setting or a wrong value in `asked`.
    """
    spec, rows = record.spec, record.epochs
    schema = Schema.load(python or (spec.python if spec else None) or None)
    checked = schema.check(asked)
    catalog = Catalog(record.layout.weights, allow)
    in_weights = [file.path for file in catalog.files() if not file.in_backup and file.kind != POINT]
    verdicts = [settled(catalog, path) for path in in_weights]
    strangers = restore_points.find_strangers(verdicts, record.results)
    own = [one for one in verdicts if one.path not in strangers]
    bad = [one.epoch + 1 for one in own if one.epoch is not None and _condemns(one)]
    trouble, reached = first_trouble(record, bad), record.reached
    points = {record.layout.point(point.name): point for point in step_points(record.layout)}
    out = {**strangers, **why_left_out(record, points, checked)}
    asked_epochs = number(checked.get("epochs", _epochs_of(record, own)) or 0)
    goal = int(asked_epochs) if math.isfinite(asked_epochs) else 0  # args.yaml may hold anything
    trains = goes_on(record)
    criteria = restore_points.RestoreCriteria(
        trouble, reached, goal, _known_places(record), out, points, trains
    )
    closes = mosaic_closes(record.args)
    verdicts += [settled(catalog, path) for path in points]
    return PlanInputs(
        record=record, schema=schema, asked=checked, trouble=trouble, reached=reached,
        candidates=restore_points.list_candidates(verdicts, criteria),
        judgement=first_of(judge_warnings(record), judge_numbers(rows, closes)),
        ruin=proven_ruin(rows, validated_in_fp32(record), closes),
        overflowed=overflows(record),
    )  # fmt: skip


def _epochs_of(record: RunRecord, own: Collection[Verdict]) -> object:
    """Return how many epochs the run is to train; with `time=` Ultralytics reckons them anew after each one,
    and only its newest checkpoint knows.
    """
    if record.args.get("time"):
        known = [(one.epoch, one.train_args.get("epochs")) for one in own if one.epoch is not None]
        return max(known, key=lambda one: one[0], default=(0, None))[1]
    return record.args.get("epochs") or (record.spec.train.get("epochs") if record.spec else None)


def _condemns(verdict: Verdict) -> bool:
    """Tell whether a corrupt file speaks against its epoch, and so against every later one.

    Where only the metrics recorded in it are not finite it repeats its row of results.csv, which is judged
    together with the rows after it.
    """
    return verdict.badge == "corrupt" and any(finding.kind != "metrics" for finding in verdict.findings)


def settled(catalog: Catalog, path: Path) -> Verdict:
    """Return the verdict on a file; one that is being written gets a moment."""
    verdict = catalog.verdict(path)
    for _ in range(LOOKS - 1):
        if verdict.badge == "busy":
            time.sleep(BETWEEN_LOOKS_S)
            verdict = catalog.verdict(path)
    return verdict


def _known_places(record: RunRecord) -> frozenset[str]:
    """Return every directory that this run has called its own: it may have been moved or copied.

    Empty where neither args.yaml nor a spec says, so that nothing can be told apart.
    """
    copies = (read_args(path) for path in record.layout.backups.glob(f"*/{COPIES}/args.yaml"))
    said = [record.args, record.spec.train if record.spec else {}, *copies]
    places = {str(one["save_dir"]) for one in said if one.get("save_dir")}
    return frozenset({*places, str(record.run)} if places else ())


def ours_of(record: RunRecord) -> dict[str, object]:
    """Return nantui's own settings in effect: the standing attempt's; a foreign run has no guard."""
    attempt, spec = record.standing.asked, record.spec
    if attempt is None and spec is None:
        return {**OURS_DEFAULTS, "guard": "off"}
    return {**OURS_DEFAULTS, **(attempt.ours if attempt else spec.ours if spec else {})}


def why_left_out(
    record: RunRecord, points: Mapping[Path, StepPoint], asked: Mapping[str, object]
) -> dict[Path, str]:
    """Return which step points a training with what is `asked` for cannot go on from, and why.

    A point stays on disk whatever becomes of its training, so its attempt must be one whose work is in force.
    What else the worker would refuse (`MUST_BE_THE_SAME` in worker/points/going_on.py) is said here as far as
    it is known: of the model its number of classes, and processes where the run has one host.
    """
    attempts, spec, left = attempts_in_force(record.journal), record.spec, dict[Path, str]()
    now = {**record.args, **(spec.train if spec else {}), **asked}
    here: dict[str, object] = {}
    if asked.get("data") not in (None, record.args.get("data")):
        here["data"] = str(in_full(record, asked)["data"])
    if spec is not None and spec.kind != "exec" and getattr(record.newest.asked, "nnodes", 1) == 1:
        here["world_size"] = device_count(now.get("device"))
    classes = classes_of(in_full(record, now).get("data"))
    if classes is not None and not now.get("single_cls") and now.get("task") != "semantic":
        here["classes"] = classes  # as the data set says it; a semantic one may have the background, too
    for path, point in points.items():
        if point.attempt not in attempts:
            left[path] = restore_points.LEFT_BEHIND
        elif differ := differences(point.training, here):
            left[path] = f"it does not fit what would train now ({'; '.join(differ)})"
    return left
