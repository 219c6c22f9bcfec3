"""What a plan is made from, gathered once: restore points, trouble, how far the run came, settings."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from nantui.checkpoint.catalog import Catalog
from nantui.checkpoint.verdict import Verdict
from nantui.recovery.judgement import (
    Judgement,
    Ruin,
    judge_numbers,
    mosaic_closes,
    proven_ruin,
    validated_in_fp32,
)
from nantui.recovery.manifest import COPIES
from nantui.recovery.restore_points import (
    Candidate,
    RestoreCriteria,
    choose_before,
    find_strangers,
    list_candidates,
    own_files,
)
from nantui.recovery.resume_point import why_left_out
from nantui.recovery.trouble import Trouble, first_trouble, overflowed
from nantui.run.layout import RunLayout
from nantui.run.points import step_points
from nantui.run.record import Reached, RunRecord
from nantui.run.spec import OURS_DEFAULTS, Spec, read_args
from nantui.settings.effective import number
from nantui.settings.schema import Schema

METRICS = "metrics"
"""The kind of finding that is only a number recorded in the file."""
LOOKS, BETWEEN_LOOKS_S = 4, 0.2
"""How often a checkpoint that is being written is looked at: writing one takes less as a rule."""


@dataclass(frozen=True)
class PlanInputs:
    """A snapshot. `candidates` come best first; `asked` are the settings asked for by name, checked.

    `ours` are nantui's own settings in effect. `judgement` is where finite numbers say that the network was
    lost, `ruin` where they prove it; `overflowed` are the epochs whose validation was not finite though the
    network was sound.
    """

    record: RunRecord
    schema: Schema
    ours: Mapping[str, object]
    asked: Mapping[str, object]
    candidates: list[Candidate]
    trouble: Trouble | None
    reached: Reached
    judgement: Judgement | None = None
    ruin: Ruin | None = None
    overflowed: tuple[int, ...] = ()

    @property
    def layout(self) -> RunLayout:
        """Where the run's files are."""
        return self.record.layout

    @property
    def spec(self) -> Spec | None:
        """What the run is asked to train."""
        return self.record.spec

    @property
    def args(self) -> Mapping[str, object]:
        """Ultralytics' args.yaml."""
        return self.record.args


def gather_inputs(
    record: RunRecord, asked: Mapping[str, object], python: str | None = None, allow: Collection[str] = ()
) -> PlanInputs:
    """Return what a plan is made from; `allow` names code that loading a checkpoint may run.

    Raises UserError for an unknown setting or a wrong value in `asked`.
    """
    spec, args, rows = record.spec, record.args, record.epochs
    schema = Schema.load(python or (spec.python if spec else None) or None)
    checked = schema.check(asked)
    catalog = Catalog(record.layout.weights, allow)
    verdicts = [settled(catalog, path) for path in own_files(catalog)]
    strangers = find_strangers(verdicts, record.results)
    own = [one for one in verdicts if one.path not in strangers]
    bad = [one.epoch + 1 for one in own if one.epoch is not None and condemns(one)]
    trouble, reached = first_trouble(record, bad), record.reached
    epochs = args.get("epochs") or (spec.train.get("epochs") if spec else None)
    if args.get("time"):  # then Ultralytics reckons them anew after each epoch, and only a checkpoint knows
        latest = max(
            (one for one in own if one.epoch is not None), key=lambda one: one.epoch or 0, default=None
        )
        epochs = latest.train_args.get("epochs") if latest else None
    goal = int(number(checked.get("epochs", epochs) or 0))
    points = {record.layout.point(point.name): point for point in step_points(record.layout)}
    left = why_left_out(record, points, checked)
    criteria = RestoreCriteria(trouble, reached, goal, known_places(record), {**strangers, **left}, points)
    candidates = list_candidates([*verdicts, *(settled(catalog, path) for path in points)], criteria)
    closes = mosaic_closes(args)
    return PlanInputs(
        record=record,
        schema=schema,
        ours=ours_of(record),
        asked=checked,
        candidates=candidates,
        trouble=trouble,
        reached=reached,
        judgement=judge_numbers(rows, closes),
        ruin=proven_ruin(rows, validated_in_fp32(record), closes),
        overflowed=overflowed(rows),
    )


def condemns(verdict: Verdict) -> bool:
    """Tell whether a corrupt file speaks against its epoch, and so against every later one.

    Where only the metrics recorded in it are not finite it repeats its row of results.csv, which is judged
    together with the rows after it.
    """
    return verdict.badge == "corrupt" and any(finding.kind != METRICS for finding in verdict.findings)


def settled(catalog: Catalog, path: Path) -> Verdict:
    """Return the verdict on a file; one that is being written gets a moment."""
    for _ in range(LOOKS - 1):
        verdict = catalog.verdict(path)
        if verdict.badge != "busy":
            return verdict
        time.sleep(BETWEEN_LOOKS_S)
    return catalog.verdict(path)


def known_places(record: RunRecord) -> frozenset[str]:
    """Return every directory that this run has called its own: it may have been moved or copied.

    Empty where neither args.yaml nor a spec says, so that nothing can be told apart.
    """
    copies = (read_args(path) for path in record.layout.backups.glob(f"*/{COPIES}/args.yaml"))
    said = [record.args, record.spec.train if record.spec else {}, *copies]
    places = {str(one["save_dir"]) for one in said if one.get("save_dir")}
    return frozenset({*places, str(record.run)} if places else ())


def ours_of(record: RunRecord) -> dict[str, object]:
    """Return nantui's own settings in effect: the newest attempt's; a foreign run has no guard."""
    attempt, spec = record.newest.asked, record.spec
    if attempt is None and spec is None:
        return {**OURS_DEFAULTS, "guard": "off"}
    return {**OURS_DEFAULTS, **(attempt.ours if attempt else spec.ours if spec else {})}


def reason_for(facts: PlanInputs, restore: Candidate | None) -> Trouble | Judgement | None:
    """Return the first sign of trouble, or the judgement where the restore point is from before that."""
    judgement, trouble = facts.judgement, facts.trouble
    if judgement is None or restore is None or (restore.work or 0) >= judgement.epoch:
        return trouble
    return judgement if trouble is None or judgement.epoch < trouble.epoch else trouble


def lost_since(facts: PlanInputs) -> int | None:
    """Return the epoch, from 1, from which on a ruined network is not gone back to; None for any other."""
    if facts.ruin is None:
        return None
    return min(facts.ruin.epoch, facts.judgement.epoch if facts.judgement else facts.ruin.epoch)


def second_choice(facts: PlanInputs, restore: Candidate | None) -> Candidate | None:
    """Return the newest restore point from before the judgement, None where `restore` is no later one."""
    if facts.judgement is None or restore is None:
        return None
    second = choose_before(facts.candidates, facts.judgement.epoch)
    return second if second is not None and (second.work or 0) < (restore.work or 0) else None
