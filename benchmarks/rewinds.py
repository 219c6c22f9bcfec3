"""Rewinds in place, timed: from a NaN that stays, and from bad weights, to the next good step.

`python -m benchmarks.step_points rewind` carries it out; each turn is one training with both troubles.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nantui.run.events import Event, Incident, RewindBegun, RewindDone, of_kind, parse_lines
from nantui.run.layout import RunLayout
from nantui.run.results import read_results
from nantui.run.spec import Spec, write_spec
from nantui.run.telemetry import Step, StepFollower
from tests.worker.equality import carry_out, differences
from tests.worker.runs import on_two_ranks, outcome_of, write_request

SKIPS = 6
"""Bad steps in a row after which the guard gives up, by default."""
TROUBLES = ({"fault": "nan_pixel", "epoch": 2, "batch": 3, "times": SKIPS},
            {"fault": "nan_weight", "epoch": 3, "batch": 4})  # fmt: skip


@dataclass(frozen=True)
class Took:
    """Seconds from the first bad step, and from giving up, to the end of the next good step; what the rewind
    itself took; and what a step takes usually."""

    kind: str
    first_bad_s: float
    given_up_s: float
    rewind_s: float
    step_s: float

    def __str__(self) -> str:
        return (
            f"{self.kind}: to the next good step {self.first_bad_s:.3f} s from the first bad one, "
            f"{self.given_up_s:.3f} s from giving up (a step takes {self.step_s:.3f} s), "
            f"the rewind itself {self.rewind_s:.4f} s"
        )


def rewinds(root: Path, times: int, ranks: int, common: dict[str, Any]) -> int:
    """Train `times` times; prints what the rewinds took and returns how many things were wrong."""
    wrong, every = 0, list[Took]()
    for turn in range(times):
        place = root / f"turn{turn}"
        train(place, ranks, common)
        found, bad = looked_at(place, ranks, common["epochs"])
        wrong += len(bad)
        every += found
        print("\n".join([*map(str, found), *(f"WRONG: {text}" for text in bad)]), flush=True)
    for kind in sorted({one.kind for one in every}):
        mine = [one for one in every if one.kind == kind]
        said = {name: statistics.median(getattr(one, name) for one in mine)
                for name in ("first_bad_s", "given_up_s", "rewind_s", "step_s")}  # fmt: skip
        print(json.dumps({"kind": kind, "times": len(mine), "ranks": ranks, **said}), flush=True)
    return wrong


def request(place: Path, ranks: int, common: dict[str, Any]) -> dict[str, Any]:
    """Write down what one training is asked for, unattended; returns what carries it out."""
    run = place / "run"
    write_spec(RunLayout(run).spec, Spec({}, auto=True))
    faults = [{**trouble, "rank": ranks - 1} for trouble in TROUBLES]
    write_request(run, 1, common, ours={"step_points": 0.0}, devices=ranks, faults=faults)
    spy = {"end": str(place / "at.end"), "workers": 0 if common["device"] == "cpu" else 4}
    return {"run": str(run), "number": 1, "spy": spy}


def train(place: Path, ranks: int, common: dict[str, Any]) -> None:
    """Carry one training out."""
    requests = [request(place, ranks, common)]
    with quiet(place / "out"):
        if ranks == 2:
            on_two_ranks(requests, place / "log", sys.executable, timeout=240.0)
        else:
            carry_out(requests)


@contextlib.contextmanager
def quiet(path: Path) -> Iterator[None]:
    """Send what this process and its children print to a file."""
    kept = os.dup(1)
    try:
        with path.open("wb") as out:
            os.dup2(out.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def looked_at(place: Path, ranks: int, epochs: int) -> tuple[list[Took], list[str]]:
    """Return what each rewind took, and what is not as it should be."""
    run, bad = RunLayout(place / "run"), list[str]()
    steps = StepFollower(run.steps(1)).read()[0]
    events = parse_lines(run.events(1, 0).read_text().splitlines())
    found = [took(steps, events, done) for done in of_kind(events, RewindDone)]
    outcomes = [outcome_of(run.run, 1, 0, rank).exit for rank in range(ranks)]
    if [one and one.outcome for one in outcomes] != ["finished"] * ranks:
        bad.append(f"ended as {[one and (one.outcome, one.text) for one in outcomes]}")
    if [one.kind for one in found] != ["too_many_skips", "nan_weight"]:
        bad.append(f"rewinds: {[one.kind for one in found]}")
    if bad:
        return found, bad
    if not all(row.finite for row in read_results(run.results_csv)):
        bad.append("results.csv has rows that are not finite")
    if ranks > 1:
        bad += equal_ranks(place / "at.end", ranks)[1]
    return found, bad


def equal_ranks(end: Path, ranks: int) -> tuple[int, list[str]]:
    """Compare the ranks' weights and optimizers at a training's end with the first rank's; returns how many
    tensors are compared, and where they differ.

    That it compares is shown each time: one changed bit must be seen, and each rank's BatchNorm statistics,
    which are of its own last batch, must be its own, so that no file is compared with itself.
    """
    import torch

    ends = [torch.load(end.with_suffix(f".rank{rank}"), map_location="cpu", weights_only=False)
            for rank in range(ranks)]  # fmt: skip
    unlike = [differences(_shared(ends[0]), _shared(other)) for other in ends[1:]]
    bad = [f"the ranks differ: {name}" for names in unlike for name in names][:3]
    tensors = [one for one in ends[0]["weights"].values() if one.is_floating_point()]
    changed = copy.deepcopy(ends[0])
    first = next(one for name, one in changed["weights"].items() if "running_" not in name and one.numel())
    at = (0,) * first.dim()
    first[at] = torch.nextafter(first[at].float(), torch.tensor(torch.inf)).to(first.dtype)
    if len(differences(_shared(ends[0]), _shared(changed))) != 1:
        bad.append("a changed bit is not seen")
    own = [{name: one for name, one in end["weights"].items() if "running_" in name} for end in ends]
    if not all(differences(own[0], other) for other in own[1:]):
        bad.append("the ranks have the same BatchNorm statistics: is one compared with itself?")
    return len(tensors), bad


def _shared(end: dict[str, Any]) -> dict[str, Any]:
    """Return what all ranks have alike."""
    weights = {name: one for name, one in end["weights"].items() if "running_" not in name}
    return {"weights": weights, "optimizer": end["optimizer"]}


def took(steps: list[Step], events: list[Event], done: RewindDone) -> Took:
    """Return what one rewind took, from the events before it and the rows of telemetry after it."""
    place, sign = (done.epoch, done.step), done.since
    first = next(e.t for e in of_kind(events, Incident) if (e.epoch, e.step) == sign)
    begun = next(e.t for e in of_kind(events, RewindBegun) if e.number == done.number)
    good = next(step for step in steps if (step.epoch, step.step) > place and not step.skipped)
    usual = statistics.median(step.value("step_s") for step in steps if not step.skipped)
    return Took(done.incident, good.t - first, good.t - begun, done.seconds, usual)
