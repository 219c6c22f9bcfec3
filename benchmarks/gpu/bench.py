"""What the sections share: a data set, runs under a supervisor, nvidia-smi, and the record of findings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nantui.demo.story import CLASSES, write_dataset
from nantui.run.attempts import FAILED, Attempt, write_attempt
from nantui.run.commands import Command
from nantui.run.events import AttemptEnded, Found, of_kind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.supervisor.client import CommandResult, carry_out, create_run
from nantui.supervisor.status import read_status
from tests.worker.runs import tiny_model

PATIENCE_S = 240.0


@dataclass
class Bench:
    """Where things are kept, how many GPUs there are, and the rows found so far."""

    place: Path
    gpus: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    out: Path | None = None
    only: str = ""
    """Of the sections with cases, those with this in their name."""

    @property
    def ranks(self) -> int:
        """One for each GPU; two on the CPU, where there is none."""
        return self.gpus or 2

    def device(self, ranks: int) -> str:
        """Return the devices of so many ranks, as a run is asked for them."""
        return ",".join(map(str, range(ranks))) if self.gpus else ",".join(["cpu"] * ranks)

    def small(self) -> dict[str, Any]:
        """Return what a CPU needs to be done in time: a model of six layers and small images."""
        if self.gpus:
            return {}
        if not (self.place / "tiny.yaml").exists():
            tiny_model(self.place)
        return {"model": str(self.place / "tiny.yaml"), "imgsz": 64, "workers": 0}

    def found(self, section: str, what: str, value: Any, held: bool | None = None) -> None:
        """Record one finding; `held` says whether it is as it should be, None for a mere figure."""
        word = {True: "ok", False: "NOT AS IT SHOULD BE", None: ""}[held]
        print(f"  {section:<10} {what:<58} {value} {word}", flush=True)
        self.rows.append({"section": section, "what": what, "value": value, "held": held})
        if self.out:
            self.out.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")

    def keep_logs(self, section: str) -> None:
        """Put logs and journals beside the results, of a section that found something wrong."""
        if self.out is None:
            return
        with tarfile.open(self.out.with_name(f"{section}-logs.tar.gz"), "w:gz") as archive:
            for path in (*self.place.rglob("*.log"), *self.place.rglob("journal.jsonl")):
                archive.add(path, path.relative_to(self.place))

    def data(self, sets: int = 4) -> Path:
        """Return a data set of `sets` times 48 train and 16 val images."""
        folder = self.place / f"data{sets}"
        description = folder / "all.yaml"
        if not description.exists():
            parts = [write_dataset(folder / str(seed), seed).parent for seed in range(sets)]
            names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
            lists = {
                split: [str(part.resolve() / "images" / split) for part in parts]
                for split in ("train", "val")
            }
            text = f"path: {folder.resolve()}\ntrain: {lists['train']}\nval: {lists['val']}\nnames:\n{names}"
            description.write_text(text, encoding="utf-8")
        return description

    def train(
        self,
        name: str,
        *,
        devices: int = 1,
        ours: dict[str, Any] | None = None,
        faults: list[dict[str, Any]] | None = None,
        auto: bool = False,
        **train: Any,
    ) -> Path:
        """Start a run under a supervisor and return its directory."""
        asked = {
            "model": "yolov8n.yaml",
            "data": str(self.data()),
            "project": str(self.place / "runs"),
            "name": name,
            "imgsz": 128,
            "batch": 16,
            "epochs": 30,
            "save_period": 1,
            "workers": 4,
            "plots": False,
            "device": self.device(devices),
            "optimizer": "SGD",
            "lr0": 0.01,
            "nbs": 16,
            **self.small(),
            **train,
        }
        return create_run(asked, ours or {}, faults=faults or [], auto=auto)


def new_run(ours: dict[str, Any]) -> Path:
    """Return a run directory whose first attempt is asked for, for a training in this process."""
    run = Path(tempfile.mkdtemp())
    request = Attempt(1, uuid.uuid4().hex, time.time(), "start", None, {}, ours, sys.executable)
    write_attempt(RunLayout(run), request)
    return run


def asked(words: list[str], first: str, seconds: float = 280.0) -> dict[str, Any] | str:
    """Run a module with words and return the line of JSON that it prints, known by its `first` name, or the
    end of what it printed instead."""
    try:
        answer = subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return f"not within {seconds:.0f} s"
    line = next((row for row in answer.stdout.splitlines() if row.startswith(f'{{"{first}"')), None)
    found: dict[str, Any] | str = json.loads(line) if line else (answer.stdout + answer.stderr)[-600:]
    return found


def until(look: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Return what `look` finds. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s")


def stepping(run: Path, attempt: int = 1, steps: int = 3) -> None:
    """Wait until an attempt has made some steps."""
    path = RunLayout(run).steps(attempt)

    def enough() -> bool:
        ended_early(run, attempt)
        return path.exists() and len(path.read_text().splitlines()) > steps

    until(enough, f"steps of attempt {attempt} in {run}")


def ended_early(run: Path, attempt: int) -> None:
    """Raise RuntimeError with the log's end when an attempt failed."""
    ending = told(run, AttemptEnded, attempt)
    if ending and ending.outcome == FAILED:
        log = RunLayout(run).attempt_log(attempt).read_text(errors="replace").splitlines()[-25:]
        raise RuntimeError(f"attempt {attempt} failed: {ending.text}\n" + "\n".join(log))


def journaled(run: Path, kind: type[Found], attempt: int | None = None) -> list[Found]:
    """Return the journal's events of a kind, of one attempt or of all."""
    every = of_kind(Journal(RunLayout(run).journal).events(), kind)
    return [event for event in every if attempt is None or event.attempt == attempt]


def told(run: Path, kind: type[Found], attempt: int | None = None) -> Found | None:
    """Return the first such event."""
    return next(iter(journaled(run, kind, attempt)), None)


def ended(run: Path, attempt: int = 1, seconds: float = PATIENCE_S) -> AttemptEnded:
    """Wait for the end of an attempt and return it."""
    found: AttemptEnded = until(
        lambda: told(run, AttemptEnded, attempt), f"end of attempt {attempt}", seconds
    )
    return found


def command(run: Path, kind: str, **options: Any) -> tuple[CommandResult, float]:
    """Carry out a command; returns its outcome and the seconds it took."""
    begun = time.monotonic()
    outcome = carry_out(run, Command(kind, options))
    return outcome, time.monotonic() - begun


def gpu_memory() -> list[int]:
    """Return MiB in use per GPU, as nvidia-smi says; [] without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return [int(line) for line in subprocess.check_output(words, text=True).split()]


def memory_back(before: list[int], seconds: float = 20.0) -> tuple[bool, list[int]]:
    """Wait until GPU memory is what it was; returns whether, and what it is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = gpu_memory()
        if all(after <= start + 8 for after, start in zip(now, before, strict=True)):
            return True, now
        time.sleep(0.1)
    return False, gpu_memory()


@contextmanager
def ending(run: Path) -> Iterator[Path]:
    """Kill the run afterwards if it still lives."""
    try:
        yield run
    finally:
        if read_status(run).pids:
            carry_out(run, Command("kill"))


def versions() -> dict[str, str]:
    """Return what the record has to name."""
    code = ("import torch, ultralytics; print(torch.__version__, ultralytics.__version__, "
            "torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'cpu', sep='|')")  # fmt: skip
    torch, ultralytics, gpu = (
        subprocess.check_output([sys.executable, "-c", code], text=True).strip().split("|")
    )
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.check_output(words, text=True).split()[0] if shutil.which(words[0]) else ""
    return {"gpu": gpu, "torch": torch, "ultralytics": ultralytics, "driver": driver,
            "python": sys.version.split()[0], "cores": str(os.cpu_count())}  # fmt: skip
