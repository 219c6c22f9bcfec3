"""Trainings by all ranks that no process is killed in: healthy ones, validations that overflow, bad batches.

`ddp-healthy` and `ddp-faults`; on a machine without a GPU two gloo ranks train a smaller sample on the CPU.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import rewinds
from benchmarks.gpu import validation
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.ddp_ranks import LANES, Case, Trained, carry_out, common, launch
from benchmarks.rewinds import equal_ranks
from nantui.checkpoint.catalog import Catalog
from nantui.run.events import EpochEnded, Incident
from nantui.run.results import current, read_results
from nantui.run.telemetry import StepFollower

PRECISIONS: tuple[tuple[str, Any], ...] = (("fp16", True), ("bf16", "bf16"))
RATES = {"SGD": 0.01, "AdamW": 0.001, "auto": 0.01}
SEEDS = (0, 1)
OFF = {"guard": "off"}
CUT = 26
"""Epochs of 300: plain Ultralytics validates as NaN from about the eleventh to the twentieth."""
FAULTS = ("nan_pixel", "nan_gradient", "inf_pixel")
BAD = (2, 3)
"""Epoch and batch of a fault."""
REWOUND_S = 1.0
REWINDS: tuple[tuple[str, Any, str], ...] = (
    ("fp16", True, "SGD"),
    ("bf16", "bf16", "AdamW"),
    ("fp32", False, "SGD"),
    ("fp16", True, "AdamW"),
)


def healthy(bench: Bench) -> None:
    """12 trainings and their controls, and two whose validation overflows half precision."""
    pairs = [_pair(bench, *one) for one in _healthy_ones(bench)]
    lanes: list[list[Case]] = [[] for _ in range(LANES)]
    for number, pair in enumerate(pairs):
        lanes[number % LANES] += pair
    lanes.append(_overflowing_ones(bench))
    found = carry_out(bench, "ddp-healthy", [lane for lane in lanes if lane])
    unlike: list[Case] = []
    for guarded, control in pairs:
        ours, plain = found[guarded.name], found[control.name]
        alarms = ours.alarms()
        fine = ours.outcome == plain.outcome == "finished" and not alarms
        text = f"{ours.outcome}; alarms: {alarms or 'none'}; control {plain.outcome}"
        bench.found("ddp", f"healthy, {guarded.name}", text, fine and len(ours.cells()) > 2)
        unlike += [control] if ours.cells() != plain.cells() else []
    _compare(bench, pairs, unlike, found)
    _validated(bench, *(found[name] for name in ("overflow", "overflow off")))


def _healthy_ones(bench: Bench) -> list[tuple[str, Any, str, int]]:
    every = [
        (name, amp, optimizer, seed) for seed in SEEDS for name, amp in PRECISIONS for optimizer in RATES
    ]
    return every if bench.gpus else every[:2]


def _pair(bench: Bench, precision: str, amp: Any, optimizer: str, seed: int) -> tuple[Case, Case]:
    train = common(bench, amp=amp, optimizer=optimizer, lr0=RATES[optimizer], seed=seed)
    train |= {"epochs": 8, "save_period": -1}
    name = f"{precision} {optimizer} seed {seed}"
    return Case(name, train), Case(f"{name} off", train, OFF)


def _compare(
    bench: Bench, pairs: Sequence[tuple[Case, Case]], unlike: list[Case], found: dict[str, Trained]
) -> None:
    """Compare results.csv; where one differs its control is trained again: it may differ from itself."""
    same = len(pairs) - len(unlike)
    text = f"{same} of {len(pairs)} equal to the last digit"
    bench.found("ddp", "healthy: results.csv guarded and guard=off", text, True if not unlike else None)
    if not unlike:
        return
    again = [Case(f"{case.name} again", case.train, OFF) for case in unlike]
    twice = carry_out(bench, "ddp-healthy", [again[lane::LANES] for lane in range(min(LANES, len(again)))])
    for case in unlike:
        itself = found[case.name].cells() == twice[f"{case.name} again"].cells()
        text = "two without the guard are equal" if itself else "two without the guard differ as well"
        bench.found("ddp", f"healthy: {case.name} differs", text, False if itself else None)


def _overflowing_ones(bench: Bench) -> list[Case]:
    data = str(validation.data_set(bench.place))
    train = common(bench, amp=True, optimizer="AdamW", data=data, batch=16, nbs=64, epochs=validation.EPOCHS)
    more: dict[str, Any] = {"cut": CUT} if bench.gpus else {"cut": 4, "overflows": (2, 3)}
    return [Case("overflow", train, **more), Case("overflow off", train, OFF, **more)]


def _validated(bench: Bench, ours: Trained, plain: Trained) -> None:
    lost = [row.epoch for row in read_results(plain.layout.results_csv) if not row.finite]
    mine = read_results(ours.layout.results_csv)
    fp32 = [event.epoch for event in ours.of_kind(EpochEnded) if event.validated_in == "fp32"]
    text = f"in fp32 epochs {fp32}; not finite without the guard {lost}; {ours.outcome}, {len(mine)} epochs"
    fine = bool(fp32) and fp32 == lost and all(row.finite for row in mine) and ours.outcome == "finished"
    bench.found("ddp", "validation that overflows half precision", text, fine and not ours.alarms())
    values = [value for row in mine for value in row.values.values()]
    count, bad = equal_ranks(ours.end, ours.ranks)
    bench.found("ddp", "overflow: figures finite, ranks' weights equal", f"{len(values)}, {count}: {bad}",
                not bad and all(map(math.isfinite, values)))  # fmt: skip


def faults(bench: Bench) -> None:
    """One bad batch or gradient on one rank; then trouble that stays, taken back in memory by all ranks."""
    cases = _spoilt_ones(bench)
    count = min(LANES, len(cases))
    found = carry_out(bench, "ddp-faults", [cases[lane::count] for lane in range(count)])
    for case in cases:
        text, fine = _judge(found[case.name], scalers=case.train["amp"] is True and "gradient" in case.name)
        bench.found("ddp", f"{case.name}: seen, badges, rows, ranks", text, fine)
    _rewound(bench)


def _spoilt_ones(bench: Bench) -> list[Case]:
    every = [
        Case(f"{kind} on rank {rank} {precision}", common(bench, amp=amp),
             faults=({"fault": kind, "rank": rank, "epoch": BAD[0], "batch": BAD[1]},))
        for precision, amp in PRECISIONS
        for kind in FAULTS
        for rank in (bench.ranks - 1, 0)
    ]  # fmt: skip
    return every if bench.gpus else every[:3]


def _judge(trained: Trained, scalers: bool) -> tuple[str, bool]:
    """Is the bad step skipped on all ranks, and nothing of it anywhere? Under fp16 a bad gradient of a finite
    loss is GradScaler's, whose refusal all ranks follow: no incident.
    """
    seen = [(event.epoch, event.step, event.action) for event in trained.of_kind(Incident)]
    steps = StepFollower(trained.layout.steps(1)).read_all()
    skipped = [(step.epoch, step.step) for step in steps if step.skipped and (step.epoch, step.step) >= BAD]
    badges = {verdict.badge for verdict in Catalog(trained.layout.weights).verdicts()}
    rows = current(read_results(trained.layout.results_csv))
    if trained.outcome != "finished":
        return trained.outcome, False
    count, bad = equal_ranks(trained.end, trained.ranks)
    told = f"{seen or 'no incident'}, skipped {skipped}"
    text = f"{told} {badges} {sum(row.finite for row in rows)}/{len(rows)}, {count} tensors equal {bad or ''}"
    right = seen == ([] if scalers else [(*BAD, "skipped")]) and BAD in skipped
    right = right and badges == {"clean"} and len(rows) == 3
    return text, right and all(row.finite for row in rows) and not bad


def _rewound(bench: Bench) -> None:
    """Trouble that stays, alone on the GPUs: what it takes is measured."""
    place, requests = bench.place / "ddp-rewinds", {}
    shutil.rmtree(place, ignore_errors=True)
    for precision, amp, optimizer in REWINDS if bench.gpus else REWINDS[2:3]:
        train = common(bench, amp=amp, optimizer=optimizer, epochs=4, data=str(bench.data(8)))
        train["lr0"] = 0.001
        requests[f"{precision} {optimizer}"] = rewinds.request(
            place / f"{precision}-{optimizer}", bench.ranks, train
        )
    launch(bench, place, "rewinds", list(requests.values()))
    for name, request in requests.items():
        folder = Path(request["run"]).parent
        took, bad = rewinds.looked_at(folder, bench.ranks, 4)
        bench.found("ddp", f"rewind on all ranks, {name}: wrong", json.dumps(bad), not bad)
        for one in took:
            bench.found("ddp", f"rewind, {name}: {one.kind}", str(one), one.given_up_s <= REWOUND_S)
    every = [one.given_up_s for request in requests.values()
             for one in rewinds.looked_at(Path(request["run"]).parent, bench.ranks, 4)[0]]  # fmt: skip
    if every:
        text = f"median {statistics.median(every):.2f}, longest {max(every):.2f}, of {len(every)}"
        bench.found("ddp", "rewind: s from giving up to a good step", text, max(every) <= REWOUND_S)
