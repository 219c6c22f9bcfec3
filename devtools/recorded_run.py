"""A recorded real run: what screenshots and snapshot tests show, the same on every machine and every day.

Everything small is the run's own files as they were. Checkpoints are not: of them there are names, sizes,
times and what the real scan and the real plan said about them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nantui.machine.gpus import Sample
from nantui.recovery.restore_points import Costs
from nantui.recovery.trouble import Judgement
from nantui.run.atomic_files import to_json, write_atomic
from nantui.run.commands import Command
from nantui.run.documents import JsonObject
from nantui.run.layout import RunLayout
from nantui.settings.values import Change
from nantui.ui.model.backend import Backend, Presets

RECORD = "recorded.json"
SMALL = 1 << 18
SUFFIXES = (".csv", ".yaml", ".json", ".jsonl", ".log")
HOST, USER, PLACE = "gpu1", "ana", "/data/runs"


def record(run: Path, target: Path, backend: Backend, scrub: Mapping[str, str]) -> None:
    """Copy the small files of `run` to `target`, and what the other rooms say about the large ones.

    `scrub` replaces texts (paths, user and host names) that are nobody's business.
    """
    layout = RunLayout(run)
    document = {
        "now": _newest(layout),
        "weights": [
            _weight(verdict)
            for verdict in backend.verdicts(layout.weights)
            if verdict.path.parent == layout.weights
        ],
        "plan": _or_none(lambda: backend.plan(run, None, {}, None).to_json()),
        "diagnosis": _or_none(lambda: backend.diagnose(run)),
        "hardware": to_plain(backend.hardware(run, ())),
    }
    for source in sorted(run.rglob("*")):
        name = source.relative_to(run)
        kept = name.name == "results.csv" if "backups" in name.parts else source.suffix in SUFFIXES
        if source.is_file() and kept:
            _copy(source, target / name, scrub)
    write_atomic(target / RECORD, _scrubbed(to_json(document, indent=1), scrub))


def _copy(source: Path, target: Path, scrub: Mapping[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    text = source.read_text(encoding="utf-8", errors="replace")
    target.write_text(_scrubbed(text[-SMALL:], scrub), encoding="utf-8")


def _scrubbed(text: str, scrub: Mapping[str, str]) -> str:
    for secret, shown in scrub.items():
        text = text.replace(secret, shown)
    return text


def _newest(layout: RunLayout) -> float:
    return max(
        path.stat().st_mtime
        for path in (layout.journal, layout.supervisor, layout.results_csv)
        if path.exists()
    )


def _weight(verdict: Any) -> JsonObject:
    state = verdict.path.stat()
    return {**to_plain(verdict), "name": verdict.path.name, "size": state.st_size, "modified": state.st_mtime,
            "train_args": {}, "train_metrics": {}}  # fmt: skip


def _or_none(ask: Any) -> Any:
    try:
        return ask()
    except Exception:  # a run without trouble has no plan, and that is what is recorded
        return None


def to_plain(value: Any) -> Any:
    """Return a dataclass as plain values, paths as text."""
    return json.loads(to_json(asdict(value)))


class RecordedBackend(Backend):
    """Answers from a recording; commands go nowhere."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run
        self.document: JsonObject = json.loads((run / RECORD).read_text(encoding="utf-8"))
        self.submitted: list[Command] = []

    @classmethod
    def unpacked(cls, recording: Path, run: Path) -> RecordedBackend:
        """Copy a recording to `run`, with files in place of the checkpoints, and return its backend."""
        shutil.copytree(recording, run)
        backend = cls(run)
        (run / "weights").mkdir(exist_ok=True)
        for weight in backend.document["weights"]:
            path = run / "weights" / weight["name"]
            with path.open("wb") as file:
                file.truncate(weight["size"])
            os.utime(path, (weight["modified"], weight["modified"]))
        return backend

    def now(self) -> float:
        return float(self.document["now"])

    def submit(self, run: Path, command: Command) -> None:
        self.submitted.append(command)

    def verdicts(self, weights: Path) -> Iterable[Any]:
        for weight in self.document["weights"]:
            findings = tuple(SimpleNamespace(**finding) for finding in weight["findings"])
            epoch = weight["epoch"]
            usable = weight["badge"] == "clean" and (weight["resumable"] or weight["repairable"])
            facts = {**weight, "path": weights / weight["name"], "findings": findings, "usable": usable,
                     "work_epoch": None if epoch is None else epoch + 1}  # fmt: skip
            yield SimpleNamespace(**facts)

    def quarantined(self, run: Path) -> set[str]:
        return set()

    def plan(self, run: Path, to: str | None, settings: Mapping[str, object], presets: Presets) -> Any:
        plan = self.document["plan"]
        candidates = tuple(map(_candidate, plan["candidates"]))
        wanted = to or (plan["restore_point"] or {}).get("name")
        return SimpleNamespace(
            headline=plan["headline"],
            candidates=candidates,
            restore=next((one for one in candidates if one.name == wanted), None),
            trouble=SimpleNamespace(**plan["trouble"]) if plan["trouble"] else None,
            judgement=Judgement(**plan["judgement"]) if plan.get("judgement") else None,
            second=_candidate(plan["second"]) if plan.get("second") else None,
            second_words=plan["second"]["words"] if plan.get("second") else "",
            moves=[SimpleNamespace(**move) for move in plan["moves"]],
            settings=[Change(**row) for row in plan["settings"]],
            costs=Costs(**_finite(plan["costs"])),
            warnings=plan["warnings"],
            auto=plan.get("auto", True),
            afterwards=None,
            findings=[SimpleNamespace(**one) for one in plan["findings"]],
            presets=tuple(plan["presets"]),
            earlier=[SimpleNamespace(**one) for one in plan["earlier"]],
        )

    def diagnose(self, run: Path) -> JsonObject:
        nothing: JsonObject = {"incident": None, "causes": [], "advice": [], "unknown": [], "notes": []}
        return {**nothing, **(self.document.get("diagnosis") or {})}

    def hardware(self, run: Path, pids: Sequence[int]) -> Sample:
        from nantui.run.documents import known_fields

        sample = known_fields(Sample, self.document["hardware"])
        assert sample is not None, "recorded from one"
        return sample


def _candidate(document: JsonObject) -> Any:
    facts = _finite(document)
    more = {"lost_text": facts["lost"], "path": Path(facts["path"]), "point": None, "steps_lost": 0}
    return SimpleNamespace(**{**facts, **more})


def _finite(document: JsonObject) -> JsonObject:
    """Turn the names of non-finite numbers back into numbers."""
    return {
        name: float(value) if value in ("nan", "inf", "-inf") else value for name, value in document.items()
    }
