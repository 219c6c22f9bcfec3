"""How an attempt ended, from the ranks' exit files and, where there are none, from its log.

torchrun returns 1 whatever a rank returned, and an adopted worker's status cannot be waited for: the exit
files are the truth, and a rank without one was killed. Why it ended is told by `nantui.run.endings`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from nantui.machine.process_identity import host_marks, machine_from, this_machine
from nantui.run import attempts
from nantui.run.atomic_files import read_json
from nantui.run.endings import ECHO, EXCEPTION, EXCEPTION_LINE, Cause, Traces, classify
from nantui.run.growing_files import tail_text
from nantui.run.layout import RunLayout
from nantui.run.spec import read_args
from nantui.run.status import LOST
from nantui.run.telemetry import last_step
from nantui.supervisor.foreign import PROGRESS
from nantui.terminal_text import printable, without_sequences

NOT_THE_CAUSE = re.compile("ChildFailedError|SignalException")
WORST_FIRST = (attempts.DIVERGED, attempts.FAILED, attempts.STOPPED, attempts.FINISHED)
REASON_ELSEWHERE = re.compile(r"^host \S+, rank \d+: (.+)")
"""What a rank of another host says of itself, as `hosts.leader.blame` tells it."""
NO_ROOM = 1 << 16
UNSEEN = Traces(seen=False)
"""Nobody watched it end."""
NOT_FOUND = re.compile(r"No such file|[Nn]ot [Ff]ound")


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; `epoch` and `step` from 1 where known."""

    outcome: str
    text: str = ""
    epoch: int | None = None
    step: int | None = None
    checkpoint: str | None = None
    cause: Cause = Cause()

    @property
    def shown(self) -> str:
        """What to tell people: the kind of a failure before its evidence."""
        return self.cause.text if self.outcome in {attempts.FAILED, LOST} or self.cause.requeue else self.text


def ending_of(layout: RunLayout, number: int, seen: Traces = UNSEEN) -> Ending:
    """Return how attempt `number` ended; `seen` has what only its supervisor knows: who had it killed, exit
    status, signal that asked for a stop, what hung, what became of another host.
    """
    exits = sorted(attempts.read_exits(layout, number), key=lambda one: WORST_FIRST.index(one.outcome))
    worst = exits[0] if exits else None
    if seen.killed_by and worst is not None and worst.outcome == attempts.FAILED and ECHO.search(worst.text):
        # Ranks that are killed a moment later than the others still tell of those.
        ending = Ending(attempts.STOPPED, f"killed by {seen.killed_by}", worst.epoch, worst.step)
    elif worst is not None and (worst.outcome != attempts.FINISHED or worst.rank == 0):
        silent = worst.outcome == attempts.FAILED and not worst.text
        text = printable(last_message(layout.attempt_log(number)) if silent else worst.text)
        checkpoint = next((found.checkpoint for found in exits if found.checkpoint), None)
        ending = Ending(worst.outcome, text, worst.epoch, worst.step, checkpoint)
    elif seen.killed_by:
        ending = Ending(attempts.STOPPED, f"killed by {seen.killed_by}")
    elif seen.hung:
        ending = Ending(attempts.FAILED, seen.hung)
    elif not seen.seen:
        ending = Ending(LOST, "gone without a word: host rebooted, container restarted, or everything killed")
    else:
        ending = Ending(attempts.FAILED, _why_without_exit(layout, number, seen.code))
    if seen.elsewhere and ending.outcome in (attempts.FAILED, LOST):
        # What became of another host is the reason, where the ranks here only broke off.
        ending = replace(ending, outcome=attempts.FAILED, text=seen.elsewhere)
    cause = classify(_traces(layout, number, ending.outcome, exits, seen))
    whole = cause.kind == EXCEPTION or REASON_ELSEWHERE.match(ending.text)  # with the host
    return replace(ending, cause=replace(cause, evidence=ending.text) if whole else cause)


def _traces(
    layout: RunLayout, number: int, outcome: str, exits: list[attempts.RankExit], seen: Traces
) -> Traces:
    """Return all that is left of an attempt, beside what was `seen`."""
    attempt, now = attempts.read_attempt(layout, number), host_marks()
    marks = attempt.marks if attempt else {}
    there = REASON_ELSEWHERE.match(seen.elsewhere)
    said = [there[1]] if there else [one.text for one in exits if one.outcome == exits[0].outcome]
    log = "\n".join(_log_lines(layout.attempt_log(number))) if outcome in (attempts.FAILED, LOST) else ""
    ranks = max(len(layout.ranks(number)), attempt.devices * attempt.nnodes if attempt else 1)
    counted = [count for count in (marks.get("oom_kills"), now["oom_kills"]) if isinstance(count, int)]
    there_then = machine_from({**now, **marks, "host": this_machine().host})
    steps = map(layout.steps, layout.attempt_numbers())
    given = next((one.signal for one in exits if one.signal), "")
    if outcome == attempts.STOPPED and not given:  # its supervisor was told, and may be another one by now
        given = str((read_json(layout.stop_request(number)) or {}).get("signal") or "")
    # A rank that only tells of the others was left by those that were told a moment before.
    signals = [
        one.signal or (given if one.outcome == attempts.STOPPED or ECHO.search(one.text) else "")
        for one in exits
    ]
    return replace(
        seen, outcome=outcome, said=said, log=log, ranks=ranks, signals=seen.signals or signals,
        silent=len(exits) < ranks and not seen.signals,
        killed_by=seen.killed_by if outcome == attempts.STOPPED and not (exits or seen.signals) else "",
        elsewhere="" if there else seen.elsewhere,
        oom_kills=max(counted[1] - counted[0], 0) if len(counted) == 2 else None,
        new_boot=not seen.seen and not this_machine().sees_pids_of(there_then),
        job_over=str(marks.get("job", "")) if marks.get("job") != now["job"] else "",
        trained=layout.results_csv.exists() or any(path.exists() for path in steps),
        full=not exits and shutil.disk_usage(layout.run).free < NO_ROOM,
        missing=_missing(layout, attempt) if NOT_FOUND.search("\n".join([*said, log])) else "",
    )  # fmt: skip


def _missing(layout: RunLayout, attempt: attempts.Attempt | None) -> str:
    """Return the first path of the run's data that is not there, as far as its YAML says it in full."""
    asked = {**read_args(layout.args_yaml), **(attempt.train if attempt else {})}
    data = str(asked.get("data") or "")
    document = read_args(Path(data)) if data else {}
    top = os.path.join(os.path.dirname(data), str(document.get("path") or ""))
    parts = [os.path.join(top, str(document[name])) for name in ("train", "val") if name in document]
    gone = (path for path in (data, top, *parts) if os.path.isabs(path) and not os.path.exists(path))
    return next(gone, "")


def _why_without_exit(layout: RunLayout, number: int, code: int | None) -> str:
    words = last_message(layout.attempt_log(number))
    if code is None or code > 0:
        return words or f"ended without a word (exit status {code})"
    step = last_step(layout.steps(number))
    if code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        text = f"killed by {name}"
    elif step is not None:
        where = f"in epoch {step.epoch}, after step {step.step}"
        text = f"its process ended {where} with status 0 before train() had returned (os._exit?)"
    else:
        text = "it ended with status 0, but no Ultralytics train() was seen in it"
    return text + (f"; last words: {words}" if words else "")


def last_message(path: Path) -> str:
    """Return the line of a log that says why: the last error that is no echo of another, or the last one."""
    lines = _log_lines(path)
    told = (found[1] for line in reversed(lines) if (found := EXCEPTION_LINE.match(line)))
    error = next((one for one in told if not NOT_THE_CAUSE.search(one.partition(":")[0])), "")
    return printable(error or (lines[-1] if lines else ""), 400)


def _log_lines(path: Path) -> list[str]:
    """Return the lines at the end of a log that are no progress."""
    lines = (line.rstrip() for line in re.split(r"[\r\n]+", without_sequences(tail_text(path))))
    return [line for line in lines if line and not PROGRESS.match(line)]
