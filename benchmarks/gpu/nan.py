"""NaN on one rank, in every precision; persistent trouble; the cockpit killed; recovery unattended."""

from __future__ import annotations

import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import (
    Bench,
    command,
    ended,
    ending,
    gpu_memory,
    journaled,
    stepping,
    told,
    until,
)
from nantui.checkpoint.catalog import Catalog
from nantui.run.commands import Command
from nantui.run.events import (
    AttemptEnded,
    AttemptStarted,
    Autopsy,
    CommandReceived,
    Incident,
    InEffect,
    RollbackBegun,
    RollbackDone,
)
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.supervisor.client import submit, want_worker
from nantui.supervisor.status import read_status

READS_S, LIMIT_S = 10.0, 2.0
"""How long a person reads a plan, and what a recovery may take beyond a plain resume."""
PRECISIONS: tuple[tuple[str, Any], ...] = (("fp16", True), ("bf16", "bf16"), ("fp32", False))


def caught(bench: Bench) -> None:
    """A NaN pixel on one rank costs one step on all, in three precisions."""
    for rank in range(bench.gpus):
        for name, amp in PRECISIONS:
            fault = {"fault": "nan_pixel", "rank": rank, "epoch": 3, "batch": 2}
            run = bench.train(f"nan-{name}-rank{rank}", devices=bench.gpus, batch=16 * bench.gpus, epochs=5,
                              amp=amp, faults=[fault])  # fmt: skip
            with ending(run):
                end = ended(run)
                bench.found("nan", f"{name}, rank {rank}: outcome, seen, badges, rows",
                            *_judge(run, end.outcome))  # fmt: skip


def _judge(run: Path, outcome: str) -> tuple[str, bool]:
    layout = RunLayout(run)
    seen = [(e.epoch, e.step, e.action) for e in journaled(run, Incident)]
    badges = {verdict.badge for verdict in Catalog(layout.weights).verdicts()}
    rows = current(read_results(layout.results_csv))
    finite = sum(row.finite for row in rows)
    fine = outcome == "finished" and seen == [(3, 2, "skipped")] and badges == {"clean"} and finite == 5
    return f"{outcome} {seen} {badges} {finite}/5", fine


def persistent(bench: Bench) -> None:
    """NaN that stays: diverged, rolled back, resumed with other settings; the cockpit killed in between."""
    fault = {"fault": "nan_pixel", "rank": bench.gpus - 1, "epoch": 4, "batch": 1, "times": 100, "attempt": 1}
    run = bench.train("persistent", devices=bench.gpus, batch=16 * bench.gpus, epochs=8, faults=[fault])
    with ending(run):
        end = ended(run)
        bench.found(
            "persistent",
            "attempt 1 ended as",
            f"{end.outcome}: {end.text}",
            end.outcome == "diverged",
        )
        asked = Command("recover", {"presets": ["nan-safe"], "set": {"lr0": 0.002}})
        code = f"import sys; from benchmarks.gpu.nan import leave; leave({str(run)!r}, {asked.id!r})"
        cockpit = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        until(
            lambda: any(e.command.kind == "recover" for e in journaled(run, CommandReceived)), "the command"
        )
        cockpit.send_signal(signal.SIGKILL)
        cockpit.wait()
        again = ended(run, 2)
        effect = told(run, InEffect, 2)
        values = effect.values if effect else {}
        differences = effect.differences if effect else None
        fine = again.outcome == "finished" and differences == ()
        bench.found("persistent", "attempt 2: outcome, optimizer, lr0, amp, differences",
                    f"{again.outcome} {values.get('optimizer')} {values.get('lr0')} {values.get('amp')} "
                    f"{differences}", fine)  # fmt: skip


def leave(run: str, identity: str) -> None:
    """Leave the recover command and wait, as a cockpit does until somebody kills it."""
    submit(Path(run), Command("recover", {"presets": ["nan-safe"], "set": {"lr0": 0.002}}, id=identity))
    time.sleep(600)


def natural(bench: Bench) -> None:
    """No injection: a resume with a learning rate that explodes under fp16, and the remedy that cures it."""
    with ending(bench.train("natural", epochs=12, amp=True)) as run:
        stepping(run, 1, 60)
        command(run, "stop")
        wild = {"lr0": 1.0, "momentum": 0.98, "grad_clip": 0.0}
        command(run, "resume", set=wild)
        end = ended(run, 2)
        bench.found("natural", f"resumed with {wild}, fp16", f"{end.outcome}: {end.text}",
                    end.outcome == "diverged")  # fmt: skip
        for found in journaled(run, Autopsy, 2)[:2]:
            bench.found("natural", "autopsy", f"{found.cause}: {found.text}")
        outcome, _ = command(run, "recover", presets=["nan-safe"], set={"grad_clip": 10.0, "momentum": 0.9})
        bench.found("natural", "recover with nan-safe", outcome.text, outcome.ok)
        end = ended(run, 3)
        bench.found("natural", "attempt 3 ended as", f"{end.outcome} {end.text}", end.outcome == "finished")


def unattended(bench: Bench) -> None:
    """`--auto` climbs two levels by itself: the fault returns once, then stays away."""
    faults = [
        {"fault": "nan_pixel", "epoch": 3 + attempt, "batch": 1, "times": 100, "attempt": attempt}
        for attempt in (1, 2)
    ]
    run = bench.train("auto", devices=bench.gpus, batch=16 * bench.gpus, epochs=8, faults=faults, auto=True)
    with ending(run):
        end = ended(run, 3, 400)
        started = [(e.attempt, e.asked) for e in journaled(run, AttemptStarted)]
        bench.found("auto", "attempts and what each was asked", started)
        bench.found("auto", "attempt 3 ended as", end.outcome, end.outcome == "finished")


def recovery_time(bench: Bench) -> None:
    """From asking to the first resumed step, split, beside the median of three plain `yolo resume` in
    between: after an alarm, at once, from an open dialog, with other settings, and unattended.
    """
    fault = {"fault": "nan_pixel", "epoch": 3, "batch": 1, "times": 100, "attempt": 1}
    run = bench.train("clock", batch=16, epochs=200, faults=[fault])
    with ending(run):
        ended(run)
        nan, over = journaled(run, Incident)[0].t, journaled(run, AttemptEnded)[0].t
        bench.found("recovery", "NaN to end of attempt, s", f"{over - nan:.2f}")
        after_alarm = _clocked(bench, run, "R after the alarm", "recover", presets=["nan-safe"])
        command(run, "kill")
        plains = [_plain_resume(run)]
        at_once = _clocked(bench, run, "R at once", "recover", presets=["nan-safe"])
        command(run, "kill")
        plains.append(_plain_resume(run))
        want_worker(run, True)
        until(lambda: " MB" in read_status(run).text, "the next worker")
        time.sleep(READS_S)
        bench.found("recovery", "the dialog is open", f"{read_status(run).text}; GPUs {gpu_memory()} MiB")
        from_dialog = _clocked(bench, run, f"R, dialog open {READS_S:.0f} s", "recover")
        want_worker(run, False)
        command(run, "kill")
        edited = _clocked(bench, run, "s with another lr0", "resume", set={"lr0": 0.004})
        command(run, "kill")
        plains.append(_plain_resume(run))
        plain = statistics.median(plains)
        text = f"{plain:.2f} of {', '.join(f'{seconds:.2f}' for seconds in plains)}"
        bench.found("recovery", "plain `yolo resume` to its first epoch line, s", text)
        for name, first in (("R after the alarm", after_alarm), ("R at once", at_once),
                            ("R from the dialog", from_dialog), ("s with another lr0", edited)):  # fmt: skip
            text = f"{first - plain:+.2f} s, {first / plain:.2f} times"
            bench.found("recovery", f"{name}, against the plain resume", text, first <= plain + LIMIT_S)
    with ending(bench.train("clock-auto", batch=16, epochs=200, faults=[fault], auto=True)) as run:
        stepping(run, 2, 1)
        first = float(RunLayout(run).steps(2).read_text().splitlines()[1].split(",")[0])
        over = journaled(run, AttemptEnded)[0].t
        more = first - over - plain
        text = f"{first - over:.2f} s, {more:+.2f} s against the plain resume"
        bench.found("recovery", "--auto: end of attempt 1 to first step", text, more <= LIMIT_S)


def _clocked(bench: Bench, run: Path, how: str, kind: str, **options: Any) -> float:
    """Go on with a run; returns the seconds from asking to the first step, after saying their parts."""
    asked, number = time.time(), RunLayout(run).newest_attempt() + 1
    outcome, _ = command(run, kind, **options)
    stepping(run, number, 1)
    first = float(RunLayout(run).steps(number).read_text().splitlines()[1].split(",")[0]) - asked
    begun, moved = (journaled(run, kind)[-1].t - asked for kind in (RollbackBegun, RollbackDone))
    parts = f"staged {begun:.2f}, moved {moved:.2f}, first step {first:.2f}"
    bench.found("recovery", f"{how}: asked to, s", parts, outcome.ok)
    return first


def _plain_resume(run: Path) -> float:
    last = RunLayout(run).last
    code = f"from ultralytics import YOLO; YOLO({str(last)!r}).train(resume=True)"
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        seen = b""
        while data := process.stdout.read1(4096):
            seen += data
            if b"/200" in seen and b"it/s" in seen:
                return time.monotonic() - begun
        return math.nan
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its loaders name the run, too
        process.wait()
