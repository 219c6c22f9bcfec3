"""The other rooms, played: fixed answers at once, and a list of what was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nantui.checkpoint.verdict import Finding, Verdict
from nantui.errors import UserError
from nantui.machine.gpus import Gpu, GpuProcess, Host, Sample
from nantui.recovery.restore_points import Costs
from nantui.run.atomic_files import read_json
from nantui.run.commands import Command
from nantui.run.layout import RunLayout, find_runs
from nantui.run.points import StepPoint
from nantui.run.results import current, read_metric, read_results
from nantui.run.status import RunStatus
from nantui.settings.presets import load_presets
from nantui.settings.schema import Schema
from nantui.settings.values import Change
from nantui.ui.model.backend import Presets

MACHINE = Sample(
    0.0,
    tuple(
        Gpu(
            index,
            "NVIDIA H100",
            80.0,
            used,
            busy,
            celsius,
            watts,
            700.0,
            (GpuProcess(1, used - 0.6, True, "ana"),),
        )
        for index, used, busy, celsius, watts in ((0, 21.4, 97.0, 61.0, 412.0), (1, 20.9, 95.0, 58.0, 405.0))
    ),
    Host(37.0, 64, 12.0, 128.0, 48.2, 64.0, 1.0, 4000.0, 412.0, 9.0),
)


NOW = 1_763_751_000.0


class FakeBackend:
    """Reads the state from supervisor.json without asking whether its process lives."""

    def __init__(self, *, corrupt_from: int | None = 7, plan: Any = None) -> None:
        self.corrupt_from, self.plan_answer = corrupt_from, plan
        self.submitted: list[Command] = []
        self.wanted: list[bool] = []
        """Whether the next worker was to be brought up, at each change."""
        self.asked: list[tuple[str | None, dict[str, Any], Presets]] = []
        self.machine = MACHINE
        self.left_out: set[str] = set()
        self.plan_problem: Exception | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.python: str | None = None

    def now(self) -> float:
        return NOW

    def status(self, run: Path) -> RunStatus:
        layout = RunLayout(run)
        state = read_json(layout.supervisor)
        rows = current(read_results(layout.results_csv))
        epoch = rows[-1].epoch if rows else None
        status = RunStatus(
            run, "foreign", epoch, 20,
            losses=rows[-1].losses("train") if rows else {}, metric=read_metric(layout.results_csv),
        )  # fmt: skip
        if state is None:
            return status
        return replace(
            status,
            state=state["state"],
            step=5,
            steps_per_epoch=8,
            eta_s=8040.0,
            attempt=state["attempt"],
            host="gpu1",
            guarded=True,
            last_incident=state["last_incident"],
        )

    def fleet(self, top: Path) -> list[RunStatus]:
        return [self.status(path) for path in find_runs(top)]

    def submit(self, run: Path, command: Command) -> None:
        self.submitted.append(command)

    def want_worker(self, run: Path, wanted: bool) -> None:
        self.wanted.append(wanted)

    def verdicts(self, weights: Path) -> Iterable[Verdict]:
        for path in sorted(weights.glob("*.pt"), key=lambda path: -path.stat().st_mtime):
            yield self.verdict(path)

    def verdict(self, path: Path) -> Verdict:
        digits = path.stem.removeprefix("epoch")
        epoch = int(digits) if digits.isdigit() else 11
        ill = self.corrupt_from is not None and epoch >= self.corrupt_from
        findings = (
            (
                Finding(
                    "laundered", "model.22.cv2.0.0.bn.running_var", "114 tensors are all zero that were not"
                ),
            )
            if ill
            else ()
        )
        return Verdict(
            path=path, badge="corrupt" if ill else "clean", epoch=epoch, findings=findings,
            why_not_resumable="its weights are ruined" if ill else "", date="2026-11-21T10:00:00",
            version="8.4.190", fitness=0.31 + epoch / 100, best=path.stem == "best",
            bytes=path.stat().st_size, seconds=0.02,
        )  # fmt: skip

    def restore_point(self, run: Path) -> Path | None:
        return next((one.path for one in self.verdicts(run / "weights") if one.usable), None)

    def plan(
        self, run: Path, to: str | None, settings: Mapping[str, Any], presets: Presets, **more: Any
    ) -> Any:
        self.hold.wait(20)
        self.asked.append((to, dict(settings), presets))
        if more.get("leave_out") is not None:
            self.plan_answer.images = self.plan_answer.guilty if more["leave_out"] else ()
        if self.plan_problem is not None and not more.get("restart"):
            raise self.plan_problem
        return self.plan_answer

    def diagnose(self, run: Path) -> dict[str, Any]:
        cause = {"title": "gradient explosion", "evidence": ["the norm rose from 8 to 4,000"]}
        return diagnosis([cause], [{"preset": "gentle-lr", "why": "the rate was ten times the usual one"}])

    def labels(self, run: Path, progress: Any) -> Any:
        raise UserError("shapes.yaml: no such file")

    def write_labels(self, run: Path, report: Any) -> Path:
        raise UserError("nowhere to write")

    def quarantined(self, run: Path) -> set[str]:
        return self.left_out

    def presets(self, run: Path) -> dict[str, Any]:
        return load_presets(self.schema(), run)

    def schema(self) -> Any:
        return Schema.load()

    def hardware(self, run: Path, pids: Sequence[int]) -> Sample:
        return self.machine


def diagnosis(causes: Sequence[Any] = (), advice: Sequence[Any] = ()) -> dict[str, Any]:
    """Return what `nantui diagnose --json` has, filled up where a test does not care."""
    cause = {"cause": "", "title": "", "prior": 0.7, "probability": 0.7, "evidence": []}
    remedy = {"cause": "", "why": "", "preset": "", "settings": {}, "cost": ""}
    return {
        "incident": None,
        "causes": [{**cause, **one} for one in causes],
        "advice": [{**remedy, **one} for one in advice],
        "unknown": [],
        "notes": [],
    }


def clean_candidate(number: int) -> Any:
    """Return epochN.pt as a restore point, in a run that has trained 12 epochs."""
    return SimpleNamespace(
        name=f"epoch{number}.pt",
        usable=True,
        why_not="",
        work=number + 1,
        epochs_lost=11 - number,
        lost_text=f"{number + 2} to 12",
        hours_lost=1.0,
        fitness=0.3,
        point=None,
        steps_lost=0,
    )


def point_candidate() -> Any:
    """Return a step point of the last epoch, two minutes old, as a restore point."""
    point = StepPoint("a", 1, 12, 1240, 2000, 23240, time.time() - 130, 1000, "0" * 64)
    return SimpleNamespace(
        name=point.label,
        usable=True,
        why_not="",
        work=11,
        epochs_lost=0,
        lost_text="steps 1,241 to 1,760 of epoch 12",
        hours_lost=0.035,
        fitness=0.3,
        point=point,
        steps_lost=520,
    )


def corrupt_candidate(name: str) -> Any:
    """Return a checkpoint that is no restore point."""
    return SimpleNamespace(
        name=name,
        usable=False,
        why_not="corrupt (laundered)",
        work=12,
        epochs_lost=0,
        lost_text="",
        hours_lost=0.0,
        fitness=None,
        point=None,
        steps_lost=0,
    )


def make_plan(auto: bool = True) -> Any:
    """Return a plan as recovery.plan makes them, with the parts that the dialog shows."""
    clean = clean_candidate(6), clean_candidate(5)
    return SimpleNamespace(
        headline="go back to epoch6.pt (epoch 7; lost: 8 to 12)",
        candidates=(*clean, corrupt_candidate("best.pt"), corrupt_candidate("last.pt")),
        restore=clean[0],
        trouble=SimpleNamespace(kind="nan_buffer", epoch=8),
        judgement=None,
        second=None,
        measured="gentle-lr: cured 5 of 5, keeps 91% of the mAP",
        moves=[
            SimpleNamespace(
                source="weights/last.pt",
                target="weights/corrupted_backup/last_epoch8_corrupted.pt",
                why="corrupt",
            )
        ],
        settings=[
            Change("lr0", 0.01, 0.003, "explosion"),
            Change("batch", 8, 8, "kept: yours is safer", kept=True),
            Change("guard", "observe", "protect", "the next bad batch costs one step"),
        ],
        costs=Costs(
            epochs_lost=5,
            lost_text="8 to 12",
            hours_lost=1.0,
            hours_remaining=2.5,
            seconds_per_epoch=720.0,
            factor=1.0,
        ),
        auto=auto,
        afterwards=None,
        warnings=["only under nantui, lost in a plain `yolo` resume: guard"],
        findings=[],
        presets=("nan-safe",),
        asked={"lr0": 0.003, "guard": "protect"},
        guilty=(),
        images=(),
        attempt=1,
        earlier=[],
    )
