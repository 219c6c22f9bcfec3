"""What ends a training of several ranks from outside, and what is lost: kills, hangs, no memory on one GPU.

`ddp-kills`, `ddp-hang` and `ddp-oom`, on two gloo ranks where there is no GPU. Each run is a supervised one;
what it does is in its epoch 2, whose steps are slowed down so that step points matter.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import (
    Bench,
    command,
    ended,
    ending,
    gpu_memory,
    journaled,
    memory_back,
    told,
    until,
)
from nantui.checkpoint.catalog import Catalog
from nantui.machine.process_identity import ProcessRef, alive
from nantui.machine.process_tree import members, send
from nantui.run.attempts import FINISHED, read_attempt, registered
from nantui.run.endings import CUDA_OOM, HUNG
from nantui.run.events import AttemptEnded, InEffect, Note
from nantui.run.growing_files import tail_text
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.run.telemetry import Step, StepFollower
from nantui.supervisor.client import ensure_supervisor
from nantui.supervisor.state import read_state

INTERVAL_S = 1.0
"""Between two step points."""
WRITTEN_S = 1.0
"""What may pass until a point that was taken is on the disk."""
EPOCHS = 3
SLOW = {"fault": "slow_step", "epoch": 2, "batch": 1, "times": 10_000, "seconds": 0.15, "attempt": 1}
BATCHES = 12
"""An epoch's, with 384 images."""
LATE = 9
"""The batch of epoch 2 after which a kill comes."""
TOGETHER = 10
STALL_S, HUNG_S, LOOKED_S = 20.0, 10.0, 25.0
"""Of a standstill, shortened (by default 120 s and 300 s), and what the last look at the ranks may take."""
PATIENCE = f"patience: {{heartbeat_s: 1, idle_exit_s: 2, stall_floor_s: {STALL_S}, hung_s: {HUNG_S}}}\n"
Kill = Callable[[Path], Sequence[ProcessRef]]


def begin(bench: Bench, name: str, ranks: int, faults: Sequence[dict[str, Any]] = (), **how: Any) -> Path:
    """Start a supervised run whose second epoch is slow, with step points."""
    auto = how.pop("auto", False)
    batch = 384 // BATCHES
    asked = {"batch": batch, "nbs": batch, "epochs": EPOCHS, "data": str(bench.data(8)), "seed": 0, **how}
    ours = {"step_points": INTERVAL_S}
    return bench.train(name, devices=ranks, ours=ours, faults=[SLOW, *faults], auto=auto, **asked)


def steps(run: Path, attempt: int) -> list[Step]:
    return StepFollower(RunLayout(run).steps(attempt)).read_all()


def late(run: Path, batch: int = LATE) -> None:
    """Wait for a batch of epoch 2."""

    def there() -> bool:
        failed = told(run, AttemptEnded, 1)
        if failed is not None:
            raise RuntimeError(f"ended before: {failed.text}")
        return any((step.epoch, step.step) >= (2, batch) for step in steps(run, 1)[-3:])

    until(there, f"batch {batch} of epoch 2 in {run}")


def in_a_save(run: Path) -> None:
    """Wait until the first rank is saving epoch 2."""
    late(run)
    events = RunLayout(run).events(1, 0)
    deadline = time.monotonic() + 60
    while '"saving"' not in tail_text(events, 400).strip().splitlines()[-1]:
        if time.monotonic() > deadline:
            raise TimeoutError("no save was seen")


def was_saving(run: Path) -> bool:
    """Tell whether a save was the last thing that the first rank has told of."""
    return '"saving"' in tail_text(RunLayout(run).events(1, 0), 400).strip().splitlines()[-1]


@dataclass(frozen=True)
class Lost:
    """What attempt 2 had to train again: steps, and seconds until `since`."""

    point: str
    first: str
    steps: int
    seconds: float

    @property
    def fine(self) -> bool:
        return self.seconds <= INTERVAL_S + WRITTEN_S


def lost(run: Path, since: float) -> Lost:
    """Return what was lost from the batch from which attempt 2 went on to `since`, in s since the epoch."""
    before, after = steps(run, 1), steps(run, 2)
    if not after:
        return Lost("", "no step", len(before), float("inf"))
    first = (after[0].epoch, after[0].step)
    again = [step for step in before if (step.epoch, step.step) >= first]
    kept = [step.t for step in before if (step.epoch, step.step) < first]
    attempt = read_attempt(RunLayout(run), 2)
    point = str(attempt.checkpoint if attempt else "")
    seconds = since - kept[-1] if kept and again else 0.0
    return Lost(point, f"epoch {first[0]} step {first[1]}", len(again), seconds)


def whole(run: Path) -> tuple[str, bool]:
    """Return how a run that has come to its end looks, and whether that is right."""
    layout = RunLayout(run)
    epochs = [row.epoch for row in current(read_results(layout.results_csv))]
    badges = sorted({verdict.badge for verdict in Catalog(layout.weights).verdicts()})
    return f"epochs {epochs} {badges}", epochs == list(range(1, EPOCHS + 1)) and badges == ["clean"]


def processes(run: Path) -> list[ProcessRef]:
    """Return what lives of attempt 1."""
    attempt = read_attempt(RunLayout(run), 1)
    return members(attempt.uuid) if attempt else []


# kills


def one_rank(run: Path) -> list[ProcessRef]:
    ranks = registered(RunLayout(run), 1)
    return [ranks[max(ranks)]]


def all_ranks(run: Path) -> list[ProcessRef]:
    return list(registered(RunLayout(run), 1).values())


def torchrun(run: Path) -> list[ProcessRef]:
    state = read_state(RunLayout(run).supervisor)
    assert state is not None and state.worker is not None, "it trains"
    return [state.worker]


def supervisor(run: Path) -> list[ProcessRef]:
    state = read_state(RunLayout(run).supervisor)
    assert state is not None, "it trains"
    return [state.process]


def everything(run: Path) -> list[ProcessRef]:
    return [*supervisor(run), *processes(run)]


KILLED: dict[str, Kill] = {
    "one rank": one_rank,
    "all ranks": all_ranks,
    "torchrun": torchrun,
    "the supervisor": supervisor,
    "everything": everything,
}
MOMENTS: dict[str, Callable[[Path], None]] = {"in mid-epoch": late, "in a save": in_a_save}


def kills(bench: Bench) -> None:
    """SIGKILL to each, in mid-epoch and in a save; then resumed at the batch."""
    before = gpu_memory()
    cases = [(who, when) for when in MOMENTS for who in KILLED]
    with ThreadPoolExecutor(TOGETHER if bench.gpus else 2) as pool:
        found = list(pool.map(lambda case: _caught(lambda: _killed(bench, *case)), cases))
    for (who, when), (text, fine) in zip(cases, found, strict=True):
        bench.found("ddp", f"SIGKILL of {who}, {when}", text, fine)
    back, now = memory_back(before)
    bench.found("ddp", "kills: MiB on the GPUs before and after", f"{before} {now}", back)


def _caught(do: Callable[[], tuple[str, bool]]) -> tuple[str, bool]:
    try:
        return do()
    except Exception as error:  # one case that fails must not hide the others
        return f"{type(error).__name__}: {str(error)[:400]}", False


def _killed(bench: Bench, who: str, when: str) -> tuple[str, bool]:
    with ending(begin(bench, f"kill {who} {when}".replace(" ", "-"), bench.ranks)) as run:
        MOMENTS[when](run)
        killed = KILLED[who](run)
        since = time.time()
        fine = all([send(one, signal.SIGKILL) for one in killed])
        until(lambda: not any(map(alive, killed)), f"the end of {killed}", 20)
        saving = when != "in a save" or who == "the supervisor" or was_saving(run)
        note = "" if saving else "; the save was over by then"
        if who == "the supervisor":
            return _went_on(run, fine)
        if who != "everything":  # that is found out by the next supervisor
            ended(run, 1)
        left = len(processes(run))
        command(run, "resume")
        outcome = ended(run, 2).outcome
        cost = lost(run, steps(run, 1)[-1].t if when == "in a save" else since)
        text, right = whole(run)
        told_as = journaled(run, AttemptEnded, 1)[0]
        said = (
            f"told as {told_as.cause}; processes left {left}; on from {cost.point} at {cost.first}: "
            f"{cost.steps} steps, {cost.seconds:.2f} s again; {outcome}, {text}{note}"
        )
        return said, fine and right and saving and not left and outcome == FINISHED and cost.fine


def _went_on(run: Path, fine: bool) -> tuple[str, bool]:
    """Without its supervisor a training goes on; whoever asks next takes it up."""
    at = len(steps(run, 1))
    until(lambda: len(steps(run, 1)) > at or not processes(run), "the next step")
    ensure_supervisor(RunLayout(run))
    outcome = ended(run, 1).outcome
    text, right = whole(run)
    attempts = RunLayout(run).attempt_numbers()
    said = f"it trained on, {outcome} in attempt {attempts}; nothing again; {text}"
    return said, fine and right and outcome == FINISHED and list(attempts) == [1]


# hangs


@contextlib.contextmanager
def patience(bench: Bench, text: str) -> Iterator[None]:
    """Give the supervisors that are started meanwhile a supervise.yaml of their own."""
    home = bench.place / "config"
    (home / "nantui").mkdir(parents=True, exist_ok=True)
    (home / "nantui" / "supervise.yaml").write_text(text)
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(home)
    try:
        yield
    finally:
        del os.environ["XDG_CONFIG_HOME"]
        if before is not None:
            os.environ["XDG_CONFIG_HOME"] = before


def hang(bench: Bench) -> None:
    """A stopped rank, and a rank that stays away from a collective, under `--auto`."""
    before, last = gpu_memory(), bench.ranks - 1
    away = {"fault": "slow_step", "rank": last, "epoch": 2, "batch": LATE, "seconds": 1e6, "attempt": 1}
    with patience(bench, PATIENCE), ThreadPoolExecutor(2) as pool:
        cases: dict[str, Callable[[], tuple[str, bool]]] = {
            f"rank {last} stopped (SIGSTOP)": lambda: _stopped(bench, last),
            f"a collective that rank {last} does not enter": lambda: _away(bench, last, away),
        }
        found = list(pool.map(_caught, cases.values()))
    for what, (text, fine) in zip(cases, found, strict=True):
        bench.found("ddp", what, text, fine)
    back, now = memory_back(before)
    bench.found("ddp", "hangs: MiB on the GPUs before and after", f"{before} {now}", back)


def _stopped(bench: Bench, last: int) -> tuple[str, bool]:
    with ending(begin(bench, "hang-stopped", bench.ranks, auto=True)) as run:
        late(run)
        os.kill(registered(RunLayout(run), 1)[last].pid, signal.SIGSTOP)
        return _noticed(run, time.time(), f"rank {last} does not answer, state T")


def _away(bench: Bench, last: int, away: dict[str, Any]) -> tuple[str, bool]:
    with ending(begin(bench, "hang-away", bench.ranks, [away], auto=True)) as run:
        late(run, LATE - 1)
        away_from = rf"rank {last} did not enter \w+:(?:all_reduce|broadcast) (\d+) of default_pg"
        return _noticed(run, time.time(), f"rank {last} in _disturb", away_from)


def _noticed(run: Path, since: float, wanted: str, away_from: str = "") -> tuple[str, bool]:
    """Wait for the hang's end and the run's; `wanted` is what has to be told of it, and the number of the
    collective: each step has one at least, so that one of the training's beginning is told apart.
    """
    end = ended(run, 1)
    hung = next((note.text for note in journaled(run, Note) if note.text.startswith("hung: ")), "")
    outcome = ended(run, 2).outcome
    cost, (text, right) = lost(run, since), whole(run)
    seconds = end.t - since
    found = re.search(away_from, hung)
    named = wanted in hung and found is not None
    if found and away_from:
        named = named and int(found[1]) > len(steps(run, 1))
    said = (
        f"ended after {seconds:.0f} s as {end.cause} (asked for {STALL_S + HUNG_S:.0f} s, by default 420): "
        f"{hung[6:700]}; {cost.steps} steps, {cost.seconds:.1f} s again; {outcome}, {text}"
    )
    fine = end.cause == HUNG and named
    in_time = seconds <= STALL_S + HUNG_S + LOOKED_S
    return said, fine and right and outcome == FINISHED and in_time and cost.fine


# no memory


HOG = """
import sys, torch
device, leave = torch.device("cuda", int(sys.argv[1])), float(sys.argv[2]) * 2**30
free, _ = torch.cuda.mem_get_info(device)
kept = torch.empty(int(free - leave), dtype=torch.uint8, device=device)
print("full", flush=True)
sys.stdin.read()
"""
LEFT_GIB = 9.0
"""yolov8m at 640 takes 11.2 GiB for 32 images and 5.8 for 16."""


def memory(bench: Bench) -> None:
    """The last GPU full in one step, one GPU alone, and a GPU that has no room for the batch all along."""
    before, last = gpu_memory(), bench.ranks - 1
    several = ((f"on rank {last} of {bench.ranks}", bench.ranks, last),) if bench.ranks > 1 else ()
    for what, ranks, rank in (*several, ("on one GPU", 1, 0)):
        if bench.only in what:
            text, fine = _caught(lambda ranks=ranks, rank=rank: _filled(bench, ranks, rank))
            bench.found("ddp", f"CUDA out of memory {what}", text, fine)
    if bench.gpus and bench.only in "neighbour":
        text, fine = _caught(lambda: _neighbour(bench, last))
        bench.found("ddp", f"GPU {last} with {LEFT_GIB:g} GiB left by a neighbour", text, fine)
    back, now = memory_back(before)
    bench.found("ddp", "no memory: MiB on the GPUs before and after", f"{before} {now}", back)


def _filled(bench: Bench, ranks: int, rank: int) -> tuple[str, bool]:
    fault = {"fault": "out_of_memory", "rank": rank, "epoch": 2, "batch": LATE, "attempt": 1}
    with ending(begin(bench, f"oom-{ranks}", ranks, [fault], auto=True)) as run:
        end = ended(run, 1)
        last, left = steps(run, 1)[-1].t, len(processes(run))
        outcome = ended(run, 2).outcome
        cost, (text, right) = lost(run, last), whole(run)
        batches = _batches(run)
        said = (
            f"all ended {end.t - last:.1f} s after the last step, {left} left; told as {end.cause}: "
            f"{end.evidence[:160]}; batch {batches[0]} becomes {batches[-1]}; "
            f"{cost.steps} steps, {cost.seconds:.1f} s again; {outcome}, {text}"
        )
        real = not bench.gpus or "Tried to allocate" in end.evidence
        fine = end.cause == CUDA_OOM and batches[-1] == batches[0] // 2 and real and not left
        return said, fine and right and outcome == FINISHED


def _neighbour(bench: Bench, gpu: int) -> tuple[str, bool]:
    """Another process holds most of one GPU: the batch of one rank does not fit, and all must get smaller."""
    words = [sys.executable, "-c", HOG, str(gpu), str(LEFT_GIB)]
    hog = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    batch = 32 * bench.ranks
    asked = {"model": "yolov8m.yaml", "imgsz": 640, "batch": batch, "nbs": batch, "epochs": 1, "amp": True}
    try:
        assert hog.stdout is not None and hog.stdout.readline().strip() == "full"
        run = bench.train("oom-neighbour", devices=bench.ranks, auto=True, workers=8,
                          data=str(bench.data(8)), **asked)  # fmt: skip
        with ending(run):
            until(lambda: _over(run), "the end of the run", 200)
            ends = [(end.outcome, end.cause) for end in journaled(run, AttemptEnded)]
            first = journaled(run, AttemptEnded)[0]
            said = f"batch {_batches(run)}; {ends}; {first.evidence[:160]}"
            return said, ends[0][1] == CUDA_OOM and ends[-1][0] == FINISHED and "Tried" in first.evidence
    finally:
        hog.kill()
        hog.wait()


def _over(run: Path) -> bool:
    state = read_state(RunLayout(run).supervisor)
    return bool(journaled(run, AttemptEnded)) and (state is None or not alive(state.process))


def _batches(run: Path) -> list[int]:
    return [int(effect.values["batch"]) for effect in journaled(run, InEffect)]
