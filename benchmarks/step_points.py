"""Step points: equal trainings, what a kill costs, what taking them costs.

`equal` trains every case of tests/worker/equality.py three times: whole, stopped, resumed. `kills` sends
SIGKILL to a training at random moments and resumes it from what is the newest then, until it is done. `cost`
trains in turn without points and with as many as they take by themselves. `rewind` times the way from a
trouble back in memory to the next good step.

    python -m benchmarks.step_points equal|kills|cost|rewind [--times 20] [--ranks 1] [--only WORD]
                                     [--device 0] [--amp true|false|bf16] [--model yolov8n.yaml]
                                     [--imgsz 64] [--batch 8] [--optimizer SGD]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rewinds import quiet, rewinds
from nantui.run.layout import RunLayout
from nantui.run.points import is_whole, step_points
from nantui.run.telemetry import StepFollower
from tests.worker.equality import CASES, Case, carry_out, requests_of, unequal
from tests.worker.runs import (
    Trainings,
    draw_data_set,
    on_two_ranks,
    python_path,
    tiny_model,
    write_request,
)

EVERY_S = 0.5
LONGEST_S = 10.0  # after its first step a training is killed within this time
EPOCHS, IMAGES = 8, 96


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=("equal", "kills", "cost", "rewind"))
    parser.add_argument("--times", type=int, default=20, help="how many kills, or turns")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--only", default="", help="cases with this word in their name")
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU")
    parser.add_argument("--amp", default="false", choices=("true", "false", "bf16"))
    parser.add_argument("--model", default="", help="in the place of the tiny one")
    parser.add_argument("--imgsz", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--optimizer", default="SGD")
    chosen = parser.parse_args()
    amp = {"true": True, "false": False}.get(chosen.amp, chosen.amp)
    more = {"device": chosen.device, "amp": amp, "deterministic": True}
    more |= {"model": chosen.model} if chosen.model else {}
    with tempfile.TemporaryDirectory() as folder:
        if chosen.kind == "equal":
            return equal(Path(folder), chosen.only, more)
        if chosen.kind == "kills":
            return kills(Path(folder), chosen.times, chosen.ranks, more)
        if chosen.kind == "rewind":
            sizes = {name: getattr(chosen, name) for name in ("imgsz", "batch", "optimizer")}
            asked = {**more, **sizes, "nbs": chosen.batch, "epochs": 4}
            common = {**trainings(Path(folder), 12 * chosen.batch).common, **asked}
            return rewinds(Path(folder), chosen.times, chosen.ranks, common)
        return cost(Path(folder), chosen.times)


def trainings(root: Path, images: int = 32) -> Trainings:
    return Trainings(draw_data_set(root / "data", images), tiny_model(root))


def equal(root: Path, word: str, more: dict[str, Any]) -> int:
    """Train every case; returns how many differ.

    Where one does, the training that was never stopped is repeated: it may differ from itself.
    """
    import torch

    torch.set_num_threads(1)
    bad, common = 0, {**trainings(root).common, **more}
    for case in (case for case in CASES if word in case.name):
        found = compared(case, root / case.name, common)
        bad += bool(found)
        print(
            f"CASE {case.name}: {f'{found[:3]}; {itself(case, root, common)}' if found else 'equal'}",
            flush=True,
        )
    return bad


def itself(case: Case, root: Path, common: dict[str, Any]) -> str:
    """Return whether two trainings without a stop are equal."""
    found = compared(case, root / f"{case.name}-twice", common, stopped=False)
    return f"two that were never stopped differ, too: {found[:1]}" if found else "two never stopped are equal"


def compared(case: Case, place: Path, common: dict[str, Any], stopped: bool = True) -> list[str]:
    """Return how the second training of a case differs from the first; `stopped` and resumed, or neither."""
    place.mkdir()
    requests = requests_of(case, place, common)
    if not stopped:
        whole, again = requests[:2]
        spy = {"end": str(place / "cut.end"), "workers": case.workers}
        requests = [whole, {**again, "spy": spy}]
    with quiet(place / "out"):
        if case.ranks == 2:
            on_two_ranks(requests, place / "log", sys.executable, timeout=900.0)
        else:
            carry_out(requests)
    return unequal(case, place)


def kills(root: Path, times: int, ranks: int, more: dict[str, Any]) -> int:
    """Kill trainings until `times` kills were made; returns how many things were wrong."""
    dice, common, lost, wrong, number = (
        random.Random(ranks),
        {**trainings(root, IMAGES).common, **more},
        [],
        0,
        0,
    )
    done = 0
    while done < times:
        run, number = root / f"run{done}", 0
        while True:
            number += 1
            process, killed = ask(run, number, {**common, "epochs": EPOCHS}, ranks), False
            wait = None if done >= times else dice.uniform(0.0, LONGEST_S)
            seen = until_training(run, number, process)
            if wait is not None and seen:
                try:
                    process.wait(wait)
                except subprocess.TimeoutExpired:
                    kill(process)
                    killed = True
            process.wait()
            trained = rows(run, number)
            if not killed:
                wrong += verdict(run, process.returncode)
                break
            done += 1
            lost.append(report(run, trained, done))
        print(f"run ended after {number - 1} kills", flush=True)
    whole = [value for value in lost if value is not None]
    print(
        f"{len(whole)} of {done} kills cost: median {statistics.median(whole):.2f} s, most {max(whole):.2f} s"
    )
    return wrong


def kill(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to a launcher, its ranks (which torchrun puts into sessions of their own) and theirs."""
    every = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in every:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(every, timeout=30)


def ask(run: Path, number: int, train: dict[str, Any], ranks: int) -> subprocess.Popen[bytes]:
    """Start attempt `number` in a session of its own, from the newest point or last.pt."""
    layout, fields = RunLayout(run), {"mode": "start"}
    points = [point for point in step_points(layout) if is_whole(layout, point)]
    newest = max(points, key=lambda point: point.epochs_done, default=None)
    done = epochs_saved(layout)
    if newest is not None and newest.epochs_done > done:
        fields = {"mode": "resume", "checkpoint": newest.path}
    elif done:
        fields = {"mode": "resume", "checkpoint": "weights/last.pt"}
    write_request(run, number, train, ours={"step_points": EVERY_S}, devices=ranks, **fields)
    words = ["-m", "nantui.worker", str(run), f"{number:03d}"]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    argv = [sys.executable, *(several if ranks > 1 else []), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()}
    with RunLayout(run).attempt_log(number).open("wb") as log:
        return subprocess.Popen(
            argv, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def epochs_saved(layout: RunLayout) -> int:
    from nantui.checkpoint.scan import describe

    said = describe(layout.last)
    return 0 if said.epoch is None else said.epoch + 1


def rows(run: Path, number: int) -> list[Any]:
    return StepFollower(RunLayout(run).steps(number)).read()[0]


def until_training(run: Path, number: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait for the first step; returns whether there was one."""
    while process.poll() is None:
        if RunLayout(run).steps(number).exists():
            return True
        time.sleep(0.05)
    return False


def report(run: Path, trained: list[Any], kill: int) -> float | None:
    """Return how many seconds of steps a kill has cost, None where it came before the first step."""
    layout = RunLayout(run)
    kept = [point.epochs_done for point in step_points(layout)] + [float(epochs_saved(layout))]
    per_epoch = IMAGES // 8
    again = [row for row in trained if row.epoch - 1 + row.step / per_epoch > max(kept) + 1e-9]
    seconds = sum(row.value("step_s") for row in again)
    print(f"kill {kill}: {len(again)} steps, {seconds:.2f} s to train again", flush=True)
    return seconds if trained else None


def verdict(run: Path, code: int) -> int:
    """Return how many things are wrong with a run that has come to its end."""
    layout = RunLayout(run)
    epochs = [line.split(",")[0] for line in layout.results_csv.read_text().splitlines()]
    wanted = ["epoch", *map(str, range(1, EPOCHS + 1))]
    steps = {(row.epoch, row.step) for number in layout.attempt_numbers() for row in rows(run, number)}
    missing = {(e, s) for e in range(1, EPOCHS + 1) for s in range(1, IMAGES // 8 + 1)} - steps
    torn = [point for point in step_points(layout) if not is_whole(layout, point)]
    if missing:  # telemetry is a quarter of a second late: a point may be on the disk before its batch's row
        print(f"no row in steps.csv: {sorted(missing)}")
    good = (code == 0, epochs == wanted, not torn)
    if not all(good):
        print(f"WRONG: code {code}, results.csv {epochs}, torn {torn}")
    return len(good) - sum(good)


def cost(root: Path, turns: int) -> int:
    """Train in turn with and without points; prints the medians of an epoch's seconds."""
    common = trainings(root, 256).common
    train = {**common, "model": "yolov8n.yaml", "epochs": 6, "imgsz": 160, "val": False}
    taken: dict[str, list[float]] = {"off": [], "auto": []}
    for turn in range(turns):
        for setting in ("off", "auto") if turn % 2 else ("auto", "off"):
            run = root / f"{setting}{turn}"
            write_request(run, 1, train, ours={"step_points": setting})
            argv = [sys.executable, "-m", "nantui.worker", str(run), "001"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()}
            subprocess.run(argv, env=environment, capture_output=True, check=True)
            taken[setting].append(statistics.median(row.value("step_s") for row in rows(run, 1)))
            kept = len(step_points(RunLayout(run)))
            spent = sum(row.value("step_s") for row in rows(run, 1))
            print(
                f"{setting}: {taken[setting][-1] * 1e3:.1f} ms a step, {spent:.0f} s, {kept} kept", flush=True
            )
    ratio = statistics.median(taken["auto"]) / statistics.median(taken["off"])
    print(f"median step with points / without: {ratio:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
