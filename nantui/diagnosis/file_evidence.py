"""Evidence from the run's other files: the checkpoint that was resumed, and the labels it trains on.

Slower than reading telemetry, so each is asked for on its own, and the label check is given up after a
few seconds. Each function returns its evidence, and what cannot be known, in words.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nantui.diagnosis.probabilities import CHECKPOINT, DATA, Evidence
from nantui.diagnosis.trouble import TroubleFacts
from nantui.errors import UserError
from nantui.labels.problem_kinds import ERROR, KINDS

if TYPE_CHECKING:
    from nantui.labels.report import LabelReport

PATIENCE_S = 5.0


def checkpoint(facts: TroubleFacts) -> tuple[list[Evidence], str]:
    """Return what the checkpoint that the attempt began with says, and what cannot be known of it."""
    if not facts.resumed or facts.attempt is None:
        return [], ""
    from nantui.checkpoint.catalog import Catalog

    name = facts.attempt.checkpoint or "weights/last.pt"
    path = facts.layout.run / name
    try:
        if path.stat().st_mtime > facts.attempt.created:
            return (
                [],
                f"{name} was written again since the attempt began: what was resumed is not there any more",
            )
    except OSError:
        return [], f"{name}, which the attempt resumed, is gone"
    verdict = Catalog(facts.layout.weights).verdict(path)
    found = ", ".join(dict.fromkeys(finding.kind for finding in verdict.findings))
    if verdict.badge == "corrupt":
        text = f"{name}, which the attempt resumed, is corrupt ({found})"
        return [Evidence("checkpoint", text, "nantui check", {CHECKPOINT: 100.0})], ""
    if verdict.badge == "clean" and verdict.repairable and not verdict.resumable:
        text = f"{name} was resumed with optimizer or scaler state that is not finite ({found})"
        return [Evidence("checkpoint", text, "nantui check", {CHECKPOINT: 30.0})], ""
    if verdict.badge == "clean":
        return [
            Evidence("checkpoint", f"{name}, which was resumed, is clean", "nantui check", {CHECKPOINT: 0.1})
        ], ""
    return [], f"{name} is {verdict.badge}: nothing can be said of what was resumed"


def labels(facts: TroubleFacts) -> tuple[list[Evidence], str]:
    """Return what the label check says of the training set, and what cannot be known of it."""
    from nantui.labels.check import check_data_set
    from nantui.labels.data_set import load_data_set

    data, began = str(facts.settings.get("data") or ""), time.monotonic()
    if not data:
        return [], "the labels: the run does not say which data set it trained on"
    task, imgsz = facts.settings.get("task"), facts.settings.get("imgsz")
    try:
        report = check_data_set(
            load_data_set(Path(data)),
            splits=["train"],
            task=str(task) if task else None,
            imgsz=imgsz if isinstance(imgsz, int) else 640,
            single_class=bool(facts.settings.get("single_cls")),
            progress=lambda done, total: time.monotonic() - began > PATIENCE_S,
        )
    except (UserError, OSError) as error:
        return [], f"the labels: {error}"
    unknown = "the rest of the labels: the check was given up; run `nantui labels`" if report.stopped else ""
    return list(_of_labels(report)), unknown


def _of_labels(report: LabelReport) -> Iterator[Evidence]:
    """Only labels that reach the training can cause anything; what Ultralytics drops cannot."""
    reach = {
        name: count
        for name, count in report.counts.items()
        if KINDS[name].severity == ERROR and not KINDS[name].drops and not KINDS[name].blocks
    }
    if reach:
        named = ", ".join(f"{name} {count:,}" for name, count in reach.items())
        yield Evidence(
            "labels", f"wrong labels that Ultralytics trains on: {named}", "nantui labels", {DATA: 2.0}
        )
    elif not report.stopped and not report.errors:
        text = f"no errors in {report.labels:,} label files (pixels were not looked at)"
        yield Evidence("labels", text, "nantui labels", {DATA: 0.8})
