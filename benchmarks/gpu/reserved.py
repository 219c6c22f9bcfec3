"""What PyTorch reserves on a GPU with the guard's copies and without, and how a full GPU takes them.

A training near the end of its memory must not become slow under the guard: where the allocator finds no room
it gives back what it has cached, and has to ask the driver for it again in the next step.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, asked, new_run
from benchmarks.gpu.cost import PRECISIONS, Enough, noise, settings_of

CASES = ("yolov8x 640 bf16 SGD", "yolov8m 640 fp32 AdamW")
WARM_UP, STEPS = 20, 60
MARGIN = 1.02  # a full GPU has so many times what the training reserves without the guard
SLOWER = 1.05
LONGEST_S = 120.0
Found = dict[str, Any]


def reserved(bench: Bench) -> None:
    """Each case without the guard and with it, on an empty GPU and on one that the first just fits."""
    for case in CASES:
        if bench.only in case:
            noise(bench.place / f"noise{case.split()[1]}", int(case.split()[1]))
            _empty(bench, case)


def _empty(bench: Bench, case: str) -> None:
    what = f"{case}: PyTorch reserves"
    if both := _both(bench, case, what):
        off, protect = both
        text = f"{off['reserved_gb']:.2f} GiB, with the guard {protect['reserved_gb']:.2f}, "
        text += f"filled {off['filled_gb']:.2f} and {protect['filled_gb']:.2f}; {_copies(protect)}"
        bench.found("memory", what, text)
        _full(bench, case, MARGIN * off["reserved_gb"])


def _full(bench: Bench, case: str, cap_gb: float) -> None:
    what = f"{case}, PyTorch held to {cap_gb:.2f} GiB: a step"
    if both := _both(bench, case, what, cap_gb):
        off, protect = both
        text = f"{off['step_ms']:.1f} ms, with the guard {protect['step_ms']:.1f} ms; the allocator emptied "
        text += f"its cache {off['retries']} and {protect['retries']} times; {_copies(protect)}"
        bench.found("memory", what, text, protect["step_ms"] <= SLOWER * off["step_ms"])


def _both(bench: Bench, case: str, what: str, cap_gb: float = 0.0) -> tuple[Found, Found] | None:
    """Return what a training without the guard and one with it found; None, reported, where one did not."""
    words = ["benchmarks.gpu.reserved", str(bench.place), case]
    off, protect = (asked([*words, guard, str(cap_gb)], "step_ms", LONGEST_S) for guard in ("off", "protect"))
    if isinstance(off, str) or isinstance(protect, str):
        bench.found("memory", what, f"{off} {protect}"[-600:], False)
        return None
    return off, protect


def _copies(found: Found) -> str:
    return (
        f"{found['ahead']} steps of {STEPS} ahead, copies at {found['places']} places, "
        f"{found['recorded']} recorded"
    )


def measure(place: Path, case: str, guard: str, cap_gb: float) -> dict[str, Any]:
    """Train here. Returns ms of a step after the first `WARM_UP`, GiB reserved and filled at most,
    how often the allocator emptied its cache after them, and what became of the guard's copies."""
    import torch

    from nantui.worker import ultralytics_api
    from nantui.worker.guard.step_guard import StepGuard
    from nantui.worker.guard.tensor_copies import Joined
    from nantui.worker.session import Session

    if cap_gb:
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(cap_gb * 2**30 / total)
    run = new_run({"guard": guard, "step_points": "off"})
    ahead: list[bool] = []
    places: set[tuple[int, ...]] = set()
    take_ahead, room = StepGuard._take_ahead, Joined.room

    def counted(self: StepGuard) -> bool:
        ahead.append(take_ahead(self))
        return ahead[-1]

    def noted(self: Joined) -> Any:
        found = room(self)
        places.add(tuple(one.data_ptr() for one in found))
        return found

    found: dict[str, Any] = {}
    model, imgsz, precision, optimizer = case.split()
    data = noise(place / f"noise{imgsz}", int(imgsz))
    settings = settings_of(int(imgsz), PRECISIONS[precision], optimizer)
    with (
        contextlib.suppress(Enough),
        ultralytics_api.replaced(StepGuard, "_take_ahead", counted),
        ultralytics_api.replaced(Joined, "room", noted),
    ):
        trainer = _counting(Session.open(run, 1), found)
        ultralytics_api.load_model(f"{model}.yaml").train(
            trainer=trainer, data=str(data), save_dir=str(run), **settings
        )
    return {**found, "ahead": sum(ahead), "places": len(places)}


def _counting(session: Any, found: dict[str, Any]) -> type:
    """Return a trainer that ends after `STEPS` steps, with what `measure` promises in `found`."""
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer

    from nantui.worker.trainer import guarded

    class Counting(guarded(DetectionTrainer, session)):
        _steps = _retries = 0
        _began = 0.0

        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            if event == "on_train_batch_end":
                self._steps += 1
                if self._steps in (WARM_UP, STEPS):
                    torch.cuda.synchronize()
                    self._tell()

        def _tell(self) -> None:
            retries = torch.cuda.memory_stats().get("num_alloc_retries", 0)
            if self._steps == WARM_UP:
                self._began, self._retries = time.perf_counter(), retries
                return
            recorded = self.guard.backup._recorded.values() if self.guard else ()
            found.update(
                step_ms=1e3 * (time.perf_counter() - self._began) / (STEPS - WARM_UP),
                reserved_gb=torch.cuda.max_memory_reserved() / 2**30,
                filled_gb=torch.cuda.max_memory_allocated() / 2**30,
                retries=retries - self._retries,
                recorded=sum(map(bool, recorded)),
            )
            raise Enough

    return Counting


if __name__ == "__main__":
    _place, _case, _guard, _cap = sys.argv[1:]
    print("\n" + json.dumps(measure(Path(_place), _case, _guard, float(_cap))), flush=True)
