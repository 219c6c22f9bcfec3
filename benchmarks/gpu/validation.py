"""A validation that overflows fp16: guarded and plain training beside each other, epoch by epoch.

AdamW at 0.01 drives a young network whose averaged BatchNorm statistics lag behind out of fp16's range for
some epochs, with finite weights and training losses; plain Ultralytics records NaN and mAP 0 there.
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench
from nantui.demo.story import CLASSES, write_dataset
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.events import EpochEnded, Incident, of_kind
from nantui.run.layout import RunLayout
from nantui.run.record import AttemptRecord

EPOCHS, CUT = 300, 40  # the schedule is that of 300 epochs
TOLERANCE = 0.02  # between the same averaged weights' losses by our pass and by one written out here
PRECISIONS: tuple[tuple[str, Any], ...] = (("fp16", True), ("bf16", "bf16"))


def validation(bench: Bench) -> None:
    """fp16 and bf16 trainings, guarded and plain, all four at once on one GPU."""
    data = str(data_set(bench.place))
    begun = {
        (name, guarded): subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.validation", data, json.dumps(amp), json.dumps(guarded)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, amp in PRECISIONS
        for guarded in (True, False)
    }
    found = {key: _answer(process) for key, process in begun.items()}
    for name, _ in PRECISIONS:
        ours, plain = found[name, True], found[name, False]
        if isinstance(ours, str) or isinstance(plain, str):
            bench.found("validation", name, str(ours)[-500:] + str(plain)[-500:], False)
        else:
            _compare(bench, name, ours, plain)


def _compare(bench: Bench, name: str, ours: dict[str, Any], plain: dict[str, Any]) -> None:
    rows = list(zip(ours["rows"], plain["rows"], strict=False))
    lost = [int(theirs["epoch"]) for _, theirs in rows if not _finite(theirs)]
    ill = [int(row["epoch"]) for row, _ in rows if not _finite(row)]
    bench.found("validation", f"{name}: epochs that plain Ultralytics validates as NaN", lost,
                bool(lost) if name == "fp16" else None)  # fmt: skip
    bench.found("validation", f"{name}: epochs not finite under the guard, of how many", f"{ill} {len(rows)}",
                not ill and len(rows) == CUT)  # fmt: skip
    fp32 = ours["in_fp32"]
    bench.found("validation", f"{name}: incidents, epochs validated in fp32", f"{ours['incidents']} {fp32}",
                not ours["incidents"] and fp32 == lost)  # fmt: skip
    columns = [(int(one["epoch"]), column) for one, other in rows for column in one
               if column != "time" and one[column] != other[column]]  # fmt: skip
    elsewhere = [(epoch, column) for epoch, column in columns
                 if epoch not in lost or not column.startswith(("val/", "metrics/"))]  # fmt: skip
    bench.found("validation", f"{name}: cells of results.csv unlike plain's in other epochs and columns",
                elsewhere[:4], not elsewhere)  # fmt: skip
    same = ours["weights"] == plain["weights"]
    bench.found("validation", f"{name}: averaged weights of last.pt bit-equal with plain's", same, same)
    worst = max((gap for epoch, gap in ours["gaps"] if epoch in lost), default=None)
    bench.found("validation", f"{name}: recorded losses against fp32 by hand, largest share apart", worst,
                worst is None or worst <= TOLERANCE)  # fmt: skip
    best = max(fitness for _, fitness in ours["fitness"])
    fine = ours["best_fitness"] == best and all(math.isfinite(fitness) for _, fitness in ours["fitness"])
    bench.found("validation", f"{name}: best fitness, of plain", f"{best} {plain['best_fitness']}", fine)
    bench.found("validation", f"{name}: passes on the validation set, of plain",
                f"{ours['passes']} {plain['passes']}")  # fmt: skip


def _finite(row: dict[str, str]) -> bool:
    return all(math.isfinite(float(value)) for value in row.values())


def _answer(process: subprocess.Popen[str]) -> dict[str, Any] | str:
    """Return what a training printed last, or the end of what it printed instead."""
    try:
        text, _ = process.communicate(timeout=280)
    except subprocess.TimeoutExpired:
        process.kill()
        return "not within 280 s: " + str(process.communicate()[0])[-400:]
    line = next((row for row in text.splitlines() if row.startswith('{"rows"')), None)
    found: dict[str, Any] | str = json.loads(line) if line else text
    return found


def data_set(place: Path) -> Path:
    """Return a data set of 64 train and 16 val images, cut from two drawn sets."""
    folder = place / "validation-data"
    description = folder / "all.yaml"
    if not description.exists():
        parts = [write_dataset(folder / str(seed), seed).parent.resolve() for seed in range(2)]
        train = [str(image) for part in parts for image in sorted((part / "images/train").iterdir())[:32]]
        (folder / "train.txt").write_text("\n".join(train) + "\n")
        names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
        text = f"path: {folder.resolve()}\ntrain: train.txt\nval: {parts[0]}/images/val\nnames:\n{names}"
        description.write_text(text, encoding="utf-8")
    return description


def train(data: str, amp: Any, guarded: bool) -> dict[str, Any]:
    """Train here until the cut; returns rows, fitness, weights (as a digest) and what was reported."""
    import torch
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.models.yolo.detect import DetectionTrainer

    from nantui.worker import ultralytics_api
    from nantui.worker.session import Session
    from nantui.worker.trainer import guarded as guard

    torch.use_deterministic_algorithms(True, warn_only=True)
    layout = RunLayout(Path(tempfile.mkdtemp()))
    base: type = DetectionTrainer
    if guarded:
        write_attempt(
            layout, Attempt(1, uuid.uuid4().hex, time.time(), "start", None, {}, {}, sys.executable)
        )
        base = guard(DetectionTrainer, Session.open(layout.run, 1))
    fitness: list[tuple[int, float]] = []
    gaps: list[tuple[int, float]] = []
    passes: list[int] = []
    validate = BaseValidator.__call__

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        passes.append(1)
        return validate(self, *args, **options)

    class Cut(base):
        def validate(self) -> Any:
            metrics, value = super().validate()
            fitness.append((self.epoch + 1, float(value)))
            by_hand = _losses(self)
            gaps.append((self.epoch + 1, max(
                abs(metrics[f"val/{name}"] - right) / max(abs(right), 1e-3) for name, right in by_hand.items()
            )))  # fmt: skip
            return metrics, value

        def save_model(self) -> bool:
            saved = bool(super().save_model())
            self.stop = self.stop or self.epoch + 1 >= CUT
            return saved

        def final_eval(self) -> None:
            """The last checkpoint stays as it is: it is compared."""

    with ultralytics_api.replaced(BaseValidator, "__call__", counted):
        model = ultralytics_api.load_model("yolov8n.yaml")
        model.train(trainer=Cut, data=data, save_dir=str(layout.run), **_settings(amp))
    kept = torch.load(layout.last, weights_only=False, map_location="cpu")
    events = AttemptRecord(layout, 1).events() if guarded else ()
    with layout.results_csv.open() as file:
        rows = list(csv.DictReader(file))
    return {
        "rows": rows,
        "fitness": fitness,
        "gaps": gaps,
        "best_fitness": kept["best_fitness"],
        "weights": _digest(kept["ema"].state_dict()),
        "passes": len(passes),
        "incidents": [event.incident for event in of_kind(events, Incident)],
        "in_fp32": [event.epoch for event in of_kind(events, EpochEnded) if event.validated_in == "fp32"],
    }


def _settings(amp: Any) -> dict[str, Any]:
    return {"imgsz": 128, "amp": amp, "batch": 16, "epochs": EPOCHS, "workers": 4, "device": 0, "lr0": 0.01,
            "optimizer": "AdamW", "plots": False, "seed": 0, "deterministic": True}  # fmt: skip


def _losses(trainer: Any) -> dict[str, float]:
    """Return the averaged weights' mean validation losses in fp32, without the validator's loop."""
    import torch

    from nantui.worker import validation_precision as theirs
    from nantui.worker.points.training_state import dice_kept

    loader = trainer.test_loader
    size, count = loader.batch_size, len(loader.dataset)
    sums: dict[str, float] = {}
    with torch.inference_mode(), dice_kept():
        for begin in range(0, count, size):
            batch = theirs.batch_of(trainer, range(begin, min(begin + size, count)), half=False)
            items = trainer.ema.ema.loss(batch, trainer.ema.ema(batch["img"]))[1]
            for name, value in items.items():
                sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / math.ceil(count / size) for name, value in sums.items()}


def _digest(state: dict[str, Any]) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))))
