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
from nantui.run.documents import JsonObject, known_fields
from nantui.run.layout import RunLayout
from nantui.run.status import RunStatus
from nantui.settings.values import Change
from nantui.supervisor.queue.devices import QueueNow
from nantui.supervisor.queue.entries import GOING, Entry, Queue
from nantui.ui.model.backend import Backend, Presets

RECORD, MACHINE = "recorded.json", "machine.json"
SMALL = 1 << 19
SUFFIXES = (".csv", ".yaml", ".json", ".jsonl", ".log")
HOST, USER, PLACE = "gpu1", "ana", "/data/runs"


def record(run: Path, target: Path, backend: Backend, scrub: Mapping[str, str]) -> None:
    """Copy the small files of `run` to `target`, and what the other rooms say about the large ones.

    `scrub` replaces texts (paths, user and host names) that are nobody's business.
    """
    layout, status = RunLayout(run), backend.status(run)
    backend.hardware(run, ())  # rates are known from the second look on
    for source in sorted(run.rglob("*")):
        name = source.relative_to(run)
        kept = name.name == "results.csv" if "backups" in name.parts else source.suffix in SUFFIXES
        if source.is_file() and kept:
            _copy(source, target / name, scrub)
    document = {
        "now": _newest(layout),
        "status": to_plain(status),
        "weights": [
            _weight(verdict)
            for verdict in backend.verdicts(layout.weights)
            if verdict.path.parent == layout.weights
        ],
        "plan": _or_none(lambda: backend.plan(run, None, {}, None).to_json()),
        "diagnosis": _or_none(lambda: backend.diagnose(run)),
        "hardware": to_plain(backend.hardware(run, status.pids)),
    }
    write_atomic(target / RECORD, _scrubbed(to_json(document, indent=1), scrub))


def _copy(source: Path, target: Path, scrub: Mapping[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    text = source.read_text(encoding="utf-8", errors="replace")
    kept = text if source.suffix == ".csv" else text[-SMALL:]  # a table without its first line says nothing
    target.write_text(_scrubbed(kept, scrub), encoding="utf-8")


def _scrubbed(text: str, scrub: Mapping[str, str]) -> str:
    for secret, shown in scrub.items():
        text = text.replace(secret, shown)
    return text


def _newest(layout: RunLayout) -> float:
    return max(
        path.stat().st_mtime
        for path in (layout.spec, layout.journal, layout.supervisor, layout.results_csv)
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
    """Answers from recordings; commands go nowhere."""

    def __init__(self, runs: Sequence[Path], machine: JsonObject) -> None:
        super().__init__()
        self.documents: dict[Path, JsonObject] = {run: _read(run / RECORD) for run in runs}
        self.machine = machine
        self.submitted: list[Command] = []

    @classmethod
    def unpacked(cls, recordings: Sequence[Path], top: Path) -> RecordedBackend:
        """Copy recordings of one machine below `top`, with files in place of the checkpoints."""
        runs = [top / recording.name for recording in recordings]
        for recording, run in zip(recordings, runs, strict=True):
            shutil.copytree(recording, run)
        machine = recordings[0].parent / MACHINE
        backend = cls(runs, _read(machine) if machine.exists() else {})
        for run, document in backend.documents.items():
            for weight in document["weights"]:
                path = run / "weights" / weight["name"]
                path.parent.mkdir(exist_ok=True)
                with path.open("wb") as file:
                    file.truncate(weight["size"])
                os.utime(path, (weight["modified"], weight["modified"]))
        return backend

    def now(self) -> float:
        return max(float(document["now"]) for document in self.documents.values())

    def status(self, run: Path) -> RunStatus:
        """Return it as it was seen; in older recordings it is what the files say."""
        told = self.documents[run].get("status")
        status = known_fields(RunStatus, {**told, "path": run}) if told else None
        return status or super().status(run)

    def fleet(self, top: Path) -> Iterable[RunStatus]:
        return map(self.status, self.documents)

    def submit(self, run: Path, command: Command) -> None:
        self.submitted.append(command)

    def verdicts(self, weights: Path) -> Iterable[Any]:
        for weight in self.documents[weights.parent]["weights"]:
            findings = tuple(SimpleNamespace(**finding) for finding in weight["findings"])
            epoch = weight["epoch"]
            resumable = not weight["why_not_resumable"]
            usable = weight["badge"] == "clean" and (resumable or weight["repairable"])
            facts = {**weight, "path": weights / weight["name"], "findings": findings, "usable": usable,
                     "resumable": resumable,
                     "work_epoch": None if epoch is None else epoch + 1}  # fmt: skip
            yield SimpleNamespace(**facts)

    def restore_point(self, run: Path) -> Path | None:
        point = (self.documents[run]["plan"] or {}).get("restore_point")
        return run / "weights" / point["name"] if point else None

    def quarantined(self, run: Path) -> set[str]:
        return set()

    def plan(
        self, run: Path, to: str | None, settings: Mapping[str, Any], presets: Presets, **more: Any
    ) -> Any:
        plan = self.documents[run]["plan"]
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
            measured=plan.get("measured", ""),
            asked={},
            guilty=tuple(plan.get("images", ())),
            images=tuple(plan.get("images", ())),
            attempt=0,
            earlier=[SimpleNamespace(**one) for one in plan["earlier"]],
        )

    def diagnose(self, run: Path) -> JsonObject:
        nothing: JsonObject = {"incident": None, "causes": [], "advice": [], "unknown": [], "notes": []}
        return {**nothing, **(self.documents[run].get("diagnosis") or {})}

    def hardware(self, run: Path, pids: Sequence[int]) -> Sample:
        return _sample(self.documents[run]["hardware"])

    def queue(self) -> QueueNow:
        told = self.machine.get("queue") or {"runs": []}
        by_name = {run.name: run for run in self.documents}
        rows = [{**row, "run": str(by_name.get(Path(row["run"]).name, row["run"]))} for row in told["runs"]]
        entries = tuple(entry for row in rows if (entry := known_fields(Entry, row)))
        going = {entry.run: self.status(Path(entry.run)) for entry in entries if entry.state == GOING}
        queue = Queue(entries, bool(told.get("paused")))
        return QueueNow(queue, going, {row["run"]: row["waits_for"] for row in rows})

    def measured(self) -> list[Sample]:
        """Return what was measured of the machine before, oldest first."""
        return [_sample(one) for one in self.machine.get("samples", ())]


def _read(path: Path) -> JsonObject:
    document: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    return document


def _sample(document: JsonObject) -> Sample:
    sample = known_fields(Sample, document)
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
