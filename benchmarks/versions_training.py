"""What `make matrix` proves for one Ultralytics: hooks, a caught NaN, badges, rollback, resume, DDP spawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nantui.checkpoint.catalog import Catalog
from nantui.run.attempts import read_exits
from nantui.run.commands import Command
from nantui.run.events import AttemptEnded, EpochEnded, Incident, InEffect, newest, of_kind
from nantui.run.layout import RunLayout
from nantui.run.record import AttemptRecord, RunRecord
from nantui.supervisor.client import carry_out, create_run
from nantui.supervisor.host_checks import OK
from tests.worker.runs import draw_data_set

Result = tuple[str, bool, str]
EPOCHS, BATCHES = 4, 4
LONGEST_S = 240
TRAIN: dict[str, Any] = {
    "model": "yolov8n.yaml", "epochs": EPOCHS, "imgsz": 64, "batch": 8, "nbs": 8, "device": "cpu",
    "workers": 0, "plots": False, "optimizer": "SGD", "lr0": 0.001, "warmup_epochs": 0.0, "mosaic": 0.0,
    "save_period": 1,
}  # fmt: skip
ASKED = {"lr0": 0.0004, "momentum": 0.8}
# Ultralytics refuses "0,1" without a GPU; a site of the user's own says that both are the processor.
SITE = """
import importlib.util, os, sys

def processor(module):
    module.select_device = lambda *args, **options: module.torch.device("cpu")

def two_devices(module):
    made = module.BaseTrainer.__init__
    def init(self, *args, **options):
        made(self, *args, **options)
        self.args.device, self.world_size, self.ddp = "0,1", 2, "LOCAL_RANK" not in os.environ
    module.BaseTrainer.__init__ = init

class Finder:
    def __init__(self, name, change):
        self.name, self.change = name, change
    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def and_change(module):
            load(module)
            self.change(module)
        spec.loader.exec_module = and_change
        return spec

sys.meta_path.insert(0, Finder("ultralytics.utils.torch_utils", processor))
sys.meta_path.insert(0, Finder("ultralytics.engine.trainer", two_devices))
"""
SCRIPT = """
import sys
from ultralytics import YOLO
if __name__ == "__main__":
    YOLO("yolov8n.yaml").train(data=sys.argv[1], epochs=2, imgsz=64, batch=8, nbs=8, device="0,1",
                               workers=0, plots=False, optimizer="SGD", lr0=0.001, warmup_epochs=0.0)
    print("the script goes on")
"""


def checks(python: Path, place: Path) -> Iterator[Result]:
    """Yield (check, whether it held, detail) for the Ultralytics of one interpreter."""
    os.environ.update(OMP_NUM_THREADS="1", YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
    data = draw_data_set(place / "data")
    yield hooks(python)
    fault = {"fault": "nan_pixel", "epoch": 2, "batch": 2}
    train = {**TRAIN, "data": str(data), "project": str(place / "runs"), "name": "one"}
    run = create_run(train, python=str(python), faults=[fault])
    layout = RunLayout(run)
    yield finished(layout, 1)
    yield caught(layout)
    yield badges(layout)
    yield from brought_back(python, layout)
    yield back_in_memory(python, place, data)
    yield from spawned(python, place, data)


def hooks(python: Path) -> Result:
    """`nantui doctor` says which of the places that the guard needs are there."""
    done = command("doctor", "--python", str(python), "--json")
    found = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "hook"]
    bad = [check["text"] for check in found if check["verdict"] != OK]
    return "hooks", bool(found) and not bad, "; ".join(bad) or f"all {len(found)} hold"


def finished(layout: RunLayout, number: int) -> Result:
    """The attempt trains to its end, under the guard."""
    ending = ended(layout, number)
    guarded = [event.guarded for event in of_kind(AttemptRecord(layout, number).events(), InEffect)]
    good = ending is not None and ending.outcome == "finished" and guarded == [True]
    text = (
        f"{ending.outcome} {ending.text}" if ending else "no word from the worker: " + log_of(layout, number)
    )
    return f"attempt {number} under the guard", good, f"{text.strip()}, guarded: {guarded}"


def caught(layout: RunLayout) -> Result:
    """The planted NaN is skipped in its step."""
    incidents = of_kind(AttemptRecord(layout, 1).events(), Incident)
    places = [(event.incident, event.epoch, event.step, event.action) for event in incidents]
    return "NaN caught and skipped", places == [("nan_loss", 2, 2, "skipped")], str(places)


def badges(layout: RunLayout) -> Result:
    """Every file of the run is clean, and epochs are what their names say."""
    verdicts = Catalog(layout.weights).verdicts()
    told = {verdict.path.name: (verdict.badge, verdict.epoch, len(verdict.findings)) for verdict in verdicts}
    wanted = {f"epoch{number}.pt": ("clean", number, 0) for number in range(EPOCHS)}
    wanted |= {name: ("clean", None, 0) for name in ("last.pt", "best.pt")}
    return "badges of its files", told == wanted, f"{len(told)} files" if told == wanted else str(told)


def brought_back(python: Path, layout: RunLayout) -> Iterator[Result]:
    """Rollback to the second epoch with other settings, resume; what is in effect is what was asked for."""
    settings = [f"{name}={value}" for name, value in ASKED.items()]
    words = ["--to", "epoch1.pt", *(word for one in settings for word in ("--set", one)), "--yes"]
    done = command("rollback", str(layout.run), *words)
    yield "rollback and rebase", done.returncode == 0, done.stderr.strip().splitlines()[-1][:200]
    done = command("resume", str(layout.run), "--yes")
    if done.returncode:
        yield "resume", False, done.stderr.strip()[-200:]
        return
    yield finished(layout, 2)
    record = RunRecord(layout)
    told = newest(record.journal, InEffect)
    now = {name: told.values.get(name) if told else None for name in ASKED}
    epochs = [event.epoch for event in of_kind(record.attempt(2).events(), EpochEnded)]
    yield "settings in effect", now == ASKED and epochs == [3, 4], f"{now}, epochs {epochs}"


def spawned(python: Path, place: Path, data: Path) -> Iterator[Result]:
    """A script that asks for two devices, under `nantui exec`: both ranks of that spawn are guarded."""
    (place / "site").mkdir()
    (place / "site" / "sitecustomize.py").write_text(SITE)
    (place / "train.py").write_text(SCRIPT)
    run = place / "spawned"
    words = ["exec", "--run", str(run), "--yes", "--", str(python), str(place / "train.py"), str(data)]
    done = command(*words, PYTHONPATH=str(place / "site"), cwd=place)
    if done.returncode:
        yield "exec through its DDP spawn", False, done.stderr.strip()[-200:]
        return
    layout = RunLayout(run)
    endings = [ended(layout, 1, rank) for rank in (0, 1)]
    outcomes = [ending.outcome if ending else "no word" for ending in endings]
    good = outcomes == ["finished"] * 2
    yield "exec through its DDP spawn", good, str(outcomes) if good else f"{outcomes}: {log_of(layout, 1)}"


def back_in_memory(python: Path, place: Path, data: Path) -> Result:
    """Two ranks go back to a step point in memory, without being started anew, and train on."""
    train = {**TRAIN, "data": str(data), "project": str(place / "runs"), "name": "two", "device": "cpu,cpu"}
    run = create_run({**train, "epochs": 500}, {"step_points": 0.1}, python=str(python))
    layout, until, check = RunLayout(run), time.monotonic() + LONGEST_S, "both ranks go back in memory"
    while not any(layout.points.glob("*.json")):
        if time.monotonic() > until or ended(layout, 1, seconds=0.5):
            carry_out(run, Command("kill"))
            return check, False, f"no step point: {log_of(layout, 1)}"
    back = carry_out(run, Command("rewind"))
    stopped = carry_out(run, Command("stop"))
    outcomes = [ending.outcome if (ending := ended(layout, 1, rank)) else "no word" for rank in (0, 1)]
    good = back.ok and stopped.ok and outcomes == ["stopped"] * 2
    return check, good, back.text if good else f"{back.text}; {stopped.text}; {outcomes}: {log_of(layout, 1)}"


def command(*words: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `nantui` as a person would."""
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [more.pop("PYTHONPATH", ""), root]))
    return subprocess.run(
        [sys.executable, "-m", "nantui", *words], capture_output=True, text=True, cwd=cwd, timeout=LONGEST_S,
        env={**os.environ, "PYTHONPATH": paths, **more},
    )  # fmt: skip


def ended(layout: RunLayout, number: int, rank: int = 0, seconds: float = LONGEST_S) -> Any:
    """Wait for the end of one rank of an attempt; None where it leaves no word."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        found = [ending for ending in read_exits(layout, number) if ending.rank == rank]
        ends = of_kind(RunRecord(layout).journal, AttemptEnded)
        if any(event.attempt == number for event in ends):
            return found[0] if found else None
        time.sleep(0.2)
    return None


def log_of(layout: RunLayout, number: int) -> str:
    try:
        lines = layout.attempt_log(number).read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return " | ".join(lines[-3:])[-300:]
