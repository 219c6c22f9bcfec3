"""What the files of a run say, gathered once for a plan: candidates, trouble, how far it came, settings."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nantui.checkpoint.catalog import Catalog
from nantui.checkpoint.verdict import Verdict
from nantui.recovery.restore_points import Candidate, RestoreCriteria, list_candidates, own_files
from nantui.recovery.ruin import Ruin, proven_ruin, validated_in_fp32
from nantui.recovery.trouble import (
    Judgement,
    Reached,
    Trouble,
    first_trouble,
    how_far,
    judge_numbers,
    overflowed,
)
from nantui.recovery.undo import COPIES
from nantui.run.attempts import read_attempt
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.run.spec import OURS_DEFAULTS, Spec, read_args, read_spec
from nantui.settings.schema import Schema

METRICS = "metrics"
"""The kind of finding that is only a number recorded in the file."""
LOOKS, BETWEEN_LOOKS_S = 4, 0.2
"""How often a checkpoint that is being written is looked at: writing one takes less as a rule."""


@dataclass(frozen=True)
class PlanInputs:
    """A snapshot. `candidates` come best first; `asked` are the settings asked for by name, checked.

    `judgement` is where finite numbers say that the network was lost, `ruin` where they prove it;
    `overflowed` are the epochs whose validation was not finite though the network was sound.
    """

    layout: RunLayout
    schema: Schema
    spec: Spec | None
    args: Mapping[str, Any]
    ours: Mapping[str, Any]
    asked: Mapping[str, Any]
    candidates: list[Candidate]
    trouble: Trouble | None
    reached: Reached
    judgement: Judgement | None = None
    ruin: Ruin | None = None
    overflowed: tuple[int, ...] = ()


def gather_inputs(
    layout: RunLayout, asked: Mapping[str, Any], python: str | None = None, allow: Collection[str] = ()
) -> PlanInputs:
    """Return the facts of a run; `allow` names code that loading a checkpoint may run.

    Raises UserError for an unknown setting or a wrong value in `asked`.
    """
    spec = read_spec(layout.spec)
    schema = Schema.load(python or (spec.python if spec else None) or None)
    checked = schema.check(asked)
    catalog = Catalog(layout.weights, allow)
    verdicts = [settled(catalog, path) for path in own_files(catalog)]
    bad = [one.epoch + 1 for one in verdicts if one.epoch is not None and condemns(one)]
    trouble, reached = first_trouble(layout, bad), how_far(layout)
    args = read_args(layout.args_yaml)
    epochs = args.get("epochs") or (spec.train.get("epochs") if spec else None)
    criteria = RestoreCriteria(
        trouble, reached, int(checked.get("epochs", epochs) or 0), known_places(layout, spec, args)
    )
    candidates = list_candidates(verdicts, criteria)
    rows, closes = current(read_results(layout.results_csv)), mosaic_closes(args)
    return PlanInputs(
        layout, schema, spec, args, ours_of(layout, spec), checked, candidates, trouble, reached,
        judge_numbers(rows, closes), proven_ruin(rows, validated_in_fp32(layout), closes), overflowed(rows),
    )  # fmt: skip


def condemns(verdict: Verdict) -> bool:
    """Tell whether a corrupt file speaks against its epoch, and so against every later one.

    Where only the metrics recorded in it are not finite it repeats its row of results.csv, which is judged
    together with the rows after it.
    """
    return verdict.badge == "corrupt" and any(finding.kind != METRICS for finding in verdict.findings)


def mosaic_closes(args: Mapping[str, Any]) -> int:
    """Return the first epoch, from 1, without mosaic; 0 where it is not known or never closed."""
    epochs, last = args.get("epochs"), args.get("close_mosaic")
    return max(epochs - last + 1, 0) if isinstance(epochs, int) and isinstance(last, int) and last else 0


def settled(catalog: Catalog, path: Path) -> Verdict:
    """Return the verdict on a file; one that is being written gets a moment."""
    for _ in range(LOOKS - 1):
        verdict = catalog.verdict(path)
        if verdict.badge != "busy":
            return verdict
        time.sleep(BETWEEN_LOOKS_S)
    return catalog.verdict(path)


def known_places(layout: RunLayout, spec: Spec | None, args: Mapping[str, Any]) -> frozenset[str]:
    """Return every directory that this run has called its own: it may have been moved or copied.

    Empty where neither args.yaml nor a spec says, so that nothing can be told apart.
    """
    copies = (read_args(path) for path in layout.backups.glob(f"*/{COPIES}/args.yaml"))
    said = [args, spec.train if spec else {}, *copies]
    places = {str(one["save_dir"]) for one in said if one.get("save_dir")}
    return frozenset({*places, str(layout.run)} if places else ())


def ours_of(layout: RunLayout, spec: Spec | None) -> dict[str, Any]:
    """Return nantui's own settings in effect: the newest attempt's; a foreign run has no guard."""
    attempt = read_attempt(layout, layout.newest_attempt())
    if attempt is None and spec is None:
        return {**OURS_DEFAULTS, "guard": "off"}
    return {**OURS_DEFAULTS, **(attempt.ours if attempt else spec.ours if spec else {})}
