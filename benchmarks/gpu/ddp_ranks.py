"""Several trainings by all ranks of one launch, so that imports and NCCL's start are paid once.

`python -m torch.distributed.run … --module benchmarks.gpu.ddp_ranks CASES.json` is what a launch starts.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench
from nantui.run.attempts import RankExit, read_exits
from nantui.run.events import Event, of_kind, parse_lines
from nantui.run.incidents import is_suspicion
from nantui.run.layout import RunLayout
from tests.worker.runs import python_path, write_request

LANES = max(3, (os.cpu_count() or 1) // 6)
"""Launches beside one another that cases are spread over: each waits for the others' kernels."""
PATIENCE_S = 280.0


@dataclass(frozen=True)
class Case:
    """One training by all ranks; `cut` ends it after so many epochs (0: never), `overflows` are epochs whose
    validation overflows half precision, for a CPU, which has none."""

    name: str
    train: dict[str, Any]
    ours: dict[str, Any] = field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()
    cut: int = 0
    overflows: tuple[int, ...] = ()


class Trained:
    """What a case has left in its folder."""

    def __init__(self, place: Path, ranks: int) -> None:
        self.place, self.ranks, self.layout = place, ranks, RunLayout(place / "run")

    @property
    def end(self) -> Path:
        """Where each rank has kept weights and optimizer at its end, with the suffix `.rankN`."""
        return self.place / "at.end"

    @property
    def exits(self) -> list[RankExit]:
        return sorted(read_exits(self.layout, 1), key=lambda one: one.rank)

    @property
    def outcome(self) -> str:
        """Return how all ranks ended, in one word where they did alike."""
        said = {one.outcome for one in self.exits} if len(self.exits) == self.ranks else {"hung or killed"}
        texts = [one.text for one in self.exits if one.text]
        return ", ".join(sorted(said)) + (f": {texts[0][:200]}" if texts else "")

    def events(self) -> list[Event]:
        """Return what the first rank has told."""
        path = self.layout.events(1, 0)
        return parse_lines(path.read_text().splitlines()) if path.exists() else []

    def of_kind(self, *kinds: Any) -> list[Any]:
        return list(of_kind(self.events(), *kinds))

    def alarms(self) -> list[str]:
        """Return what a person would have been told of."""
        return [str(event.kind) for event in self.events() if event.kind == "incident" or is_suspicion(event)]

    def cells(self) -> list[list[str]]:
        """Return results.csv without the column `time`, which is the clock's."""
        path = self.layout.results_csv
        lines = path.read_text().splitlines() if path.exists() else []
        return [[*line.split(",")[:1], *line.split(",")[2:]] for line in lines]


def common(bench: Bench, **train: Any) -> dict[str, Any]:
    """Return the arguments of a small training by all ranks."""
    device = bench.device(bench.ranks) if bench.gpus else "cpu"
    return {
        "model": "yolov8n.yaml", "data": str(bench.data()), "imgsz": 128, "batch": 16 * bench.ranks,
        "nbs": 16 * bench.ranks, "epochs": 3, "optimizer": "SGD", "lr0": 0.01, "plots": False, "seed": 0,
        "deterministic": True, "workers": 4, "save_period": 1, "verbose": False, **bench.small(),
        "device": device, **train,
    }  # fmt: skip


def carry_out(bench: Bench, section: str, lanes: Sequence[Sequence[Case]]) -> dict[str, Trained]:
    """Carry the cases out, the lanes side by side; returns what each has left, by name."""
    with ThreadPoolExecutor(max(len(lanes), 1)) as pool:
        done = pool.map(lambda lane: _launch(bench, section, *lane), enumerate(lanes))
    return {name: one for every in done for name, one in every.items()}


def _launch(bench: Bench, section: str, number: int, cases: Sequence[Case]) -> dict[str, Trained]:
    place = bench.place / section
    found = {case.name: Trained(place / case.name.replace(" ", "-"), bench.ranks) for case in cases}
    requests = [_request(found[case.name], case) for case in cases]
    launch(bench, place, f"lane{number}", requests)
    return found


def _request(trained: Trained, case: Case) -> dict[str, Any]:
    shutil.rmtree(trained.place, ignore_errors=True)
    fields = {"ours": case.ours, "faults": list(case.faults), "devices": trained.ranks}
    write_request(trained.layout.run, 1, case.train, **fields)
    spy = {"end": str(trained.end), "workers": case.train["workers"]}
    more = {"cut": case.cut, "overflows": list(case.overflows)}
    return {"run": str(trained.layout.run), "number": 1, "spy": spy, **more}


def launch(bench: Bench, place: Path, name: str, requests: Sequence[dict[str, Any]]) -> None:
    """Have all ranks of one torchrun carry the requests out; a launch that hangs is ended."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"{name}.json"
    file.write_text(json.dumps(list(requests)))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(bench.ranks)]
    words = [sys.executable, *start, "--module", "benchmarks.gpu.ddp_ranks", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()}
    with (place / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its ranks
            process.wait(60)
    if process.returncode:
        lines = (place / f"{name}.log").read_text(errors="replace").splitlines()
        print(f"{name} ended with {process.returncode}:\n" + "\n".join(lines[-30:]), flush=True)


def main(file: Path) -> None:
    """Be one rank: carry out each request, with the process group of the first."""
    import torch

    from nantui.worker import __main__ as worker
    from nantui.worker.process_end import leave
    from tests.worker.equality import spied

    torch.set_num_threads(1)
    with _one_group():
        for asked in json.loads(file.read_text()):
            spy = asked["spy"]
            with spied(Path(spy["end"]), workers=spy["workers"]), _cut(asked), _overflowing(asked):
                worker.main([asked["run"], f"{asked['number']:03d}"])
            gc.collect()  # and with the trainer its loaders' workers
    leave(0)


@contextlib.contextmanager
def _one_group() -> Any:
    """Ultralytics starts a process group for each training; here the first one's stays."""
    from torch import distributed

    from nantui.worker.ultralytics_api import replaced

    begin = distributed.init_process_group

    def once(*words: Any, **options: Any) -> None:
        if not distributed.is_initialized():
            begin(*words, **options)

    with replaced(distributed, "init_process_group", once):
        yield


@contextlib.contextmanager
def _cut(asked: dict[str, Any]) -> Any:
    """End a training after so many epochs of its schedule."""
    from nantui.worker.trainer import GuardedTrainer
    from nantui.worker.ultralytics_api import replaced

    save, last = GuardedTrainer.save_model, asked.get("cut", 0)

    def cut(self: Any) -> bool:
        saved = save(self)
        self.stop = self.stop or self.epoch + 1 == last
        return saved

    with replaced(GuardedTrainer, "save_model", cut):
        yield


def _overflowing(asked: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    from tests.worker.half import half_precision

    return half_precision(asked["overflows"]) if asked.get("overflows") else contextlib.nullcontext()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
