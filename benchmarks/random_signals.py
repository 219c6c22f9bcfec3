"""Signals at random moments, to a random process, of a training under `--auto`: what does each cost?

    python -m benchmarks.random_signals [--times 200] [--seconds 3000] [--seed 0]

A tiny YOLO on the CPU, in every other run by a script of one's own, with two loaders' workers. Each signal
ends the attempt in order; the next one begins by itself (by `nantui resume` where the supervisor was told,
too). A step is lost where the next attempt trains it again. No file may be torn: every byte of every
checkpoint is held against its CRC-32, and results.csv has each epoch once.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.endings import SCRIPT, Case, begun, end, nothing, quick_home, room
from nantui.machine.process_identity import alive
from nantui.machine.process_tree import send
from nantui.run.attempts import read_exits
from nantui.run.results import read_results
from nantui.run.telemetry import StepFollower
from nantui.supervisor.state import read_state
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually

LONGEST_S = 3.0
"""A signal comes within this time after the attempt's first step; each sixth before there is one."""
TARGETS = ("the rank", "every process", "the supervisor")
LONG = {"epochs": 100000, "batch": 8}


@dataclass
class Tally:
    """What the signals did so far."""

    targets: tuple[str, ...]
    lost: list[int] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="how many signals")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no further signal after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", choices=TARGETS, help="always this one, with loaders' workers in every run")
    chosen = parser.parse_args()
    dice, until = random.Random(chosen.seed), time.monotonic() + chosen.seconds
    tally = Tally((chosen.to,) if chosen.to else TARGETS)
    with quick_home() as place:
        number = 0
        while len(tally.lost) < chosen.times and time.monotonic() < until:
            number += 1
            many, script = min(25, chosen.times - len(tally.lost)), bool(chosen.to) or number % 2 == 0
            with room(place, f"signals{number}") as own:
                case = Case("", nothing, settings=LONG, script=SCRIPT if script else "", faults=())
                one_run(begun(place, own, case), dice, tally, many, until)
    print(f"{len(tally.lost)} signals: {dict(tally.sent)}")
    print(
        f"steps trained again: {dict(sorted(Counter(tally.lost).items()))}; wrong: {tally.wrong or 'nothing'}"
    )
    return 1 if tally.wrong else 0


def one_run(run: StubRun, dice: random.Random, tally: Tally, times: int, until: float) -> None:
    """Send up to `times` signals to one run."""
    try:
        for _ in range(times):
            if time.monotonic() > until:
                break
            one_signal(run, dice, tally)
    except AssertionError as error:
        tally.wrong.append(str(error)[-1500:])
        print(f"WRONG: {tally.wrong[-1]}", flush=True)
    finally:
        end(run)


def one_signal(run: StubRun, dice: random.Random, tally: Tally) -> None:
    """Send one signal; count the steps that the next attempt trains again."""
    number = run.layout.newest_attempt() or 1
    early = dice.random() < 1 / 6
    if early:
        eventually(lambda: len(run.members()) > 0, lambda: str(run.status()))
    else:
        eventually(lambda: trained(run, number), lambda: f"{run.status()} {run.journal()[-4:]}")
    time.sleep(dice.uniform(0.0, LONGEST_S))
    target, name = dice.choice(tally.targets), dice.choice((signal.SIGTERM, signal.SIGUSR1))
    tell(run, target, name)
    eventually(lambda: run.layout.newest_attempt() > number, lambda: f"{run.status()} {run.journal()[-6:]}")
    eventually(lambda: trained(run, number + 1), lambda: f"{run.status()} {run.journal()[-6:]}")
    before, after = trained(run, number), trained(run, number + 1)
    again = [place for place in before if place >= after[0]]
    exits = [(one.outcome, one.signal, one.text) for one in read_exits(run.layout, number)]
    tally.lost.append(len(again))
    tally.sent[f"{name.name} to {target}"] += 1
    said = f"{len(tally.lost)}: {name.name} to {target}, {len(before)} steps trained, {len(again)} again"
    bad = [*torn(run), *([f"{len(again)} steps again, {exits}"] if len(again) > 1 else [])]
    tally.wrong += [f"{said}: {one}" for one in bad]
    print(f"{said} {f'WRONG {bad} {run.journal()[-12:]}' if bad else ''}", flush=True)


def tell(run: StubRun, target: str, number: signal.Signals) -> None:
    """Send the signal; whoever ends the supervisor starts another, as a reboot's service would."""
    if target == "the supervisor":
        state = read_state(run.layout.supervisor)
        assert state is not None and send(state.process, number)
        eventually(lambda: not alive(state.process), lambda: str(run.status()))
        run.do("resume")
        return
    members = run.members()
    rank = [ref for ref in members if ref.pid == first(run)]
    for ref in members if target == "every process" else rank or members[:1]:
        send(ref, number)


def first(run: StubRun) -> int:
    """Return the pid that rank 0 registered, 0 where it has not."""
    path = run.layout.events(run.status().attempt or 0, 0)
    return run.rank_pid(0) if path.is_file() and "\n" in path.read_text() else 0


def trained(run: StubRun, number: int) -> list[tuple[int, int]]:
    """Return the (epoch, step) that an attempt has in its steps.csv."""
    return [(row.epoch, row.step) for row in StepFollower(run.layout.steps(number)).read()[0]]


def torn(run: StubRun) -> list[str]:
    """Return what is damaged: a checkpoint or step point, or the rows of results.csv."""
    bad = []
    for path in (*run.layout.weights.glob("*.pt"), *run.layout.points.glob("*.pt")):
        try:
            with zipfile.ZipFile(path) as archive:
                bad += [f"{path.name}: {name}" for name in [archive.testzip()] if name]
        except FileNotFoundError:
            continue  # the training has just put a newer one in its place
        except (zipfile.BadZipFile, OSError) as error:
            bad.append(f"{path.name}: {error}")
    epochs = [row.epoch for row in read_results(run.layout.results_csv)]
    if epochs != list(range(1, len(epochs) + 1)):
        bad.append(f"results.csv has the epochs {epochs}")
    return bad


if __name__ == "__main__":
    raise SystemExit(main())
