"""How an attempt ended, from the ranks' exit files and, where there are none, from its log.

torchrun returns 1 whatever a rank returned, and an adopted worker's status cannot be waited for: the exit
files are the truth, and a rank without one was killed.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from nantui.run.attempts import DIVERGED, FAILED, FINISHED, STOPPED, RankExit, read_exits
from nantui.run.layout import RunLayout
from nantui.run.newest_rows import last_step, tail_text
from nantui.run.status import LOST
from nantui.supervisor.foreign.log_progress import LINE
from nantui.supervisor.hosts.leader import ECHO
from nantui.terminal_text import printable, without_sequences

ERROR = re.compile(
    r"^(?:\[rank\d+\]:\s*)?((?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b.*)"
)
NOT_THE_CAUSE = ("ChildFailedError", "SignalException")
WORST_FIRST = (DIVERGED, FAILED, STOPPED, FINISHED)


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; `epoch` and `step` from 1 where known."""

    outcome: str
    text: str = ""
    epoch: int | None = None
    step: int | None = None
    checkpoint: str | None = None
    resumable: bool = False


def ending_of(
    layout: RunLayout, number: int, *, stopped_by: str = "", code: int | None = None, seen: bool = True
) -> Ending:
    """Return how attempt `number` ended.

    `stopped_by` says who had its processes killed, `code` is the exit status where it could be waited for,
    and `seen` is False when nobody watched it end (reboot, killed supervisor).
    """
    exits = read_exits(layout, number)
    worst = next((found for word in WORST_FIRST for found in exits if found.outcome == word), None)
    if stopped_by and worst is not None and worst.outcome == FAILED and ECHO.search(worst.text):
        # Ranks that are killed a moment later than the others still tell of those.
        return Ending(STOPPED, f"killed by {stopped_by}", worst.epoch, worst.step)
    if worst is not None and (worst.outcome != FINISHED or worst.rank == 0):
        return _from_exit(layout, number, worst, exits)
    if stopped_by:
        return Ending(STOPPED, f"killed by {stopped_by}")
    if not seen:
        return Ending(LOST, "gone without a word: host rebooted, container restarted, or everything killed")
    return Ending(FAILED, _why_without_exit(layout, number, code))


def _from_exit(layout: RunLayout, number: int, worst: RankExit, exits: list[RankExit]) -> Ending:
    point = next((found for found in exits if found.checkpoint), None)
    text = worst.text
    if worst.outcome == FAILED and not text:
        text = last_message(layout.attempt_log(number))
    return Ending(
        worst.outcome,
        printable(text),
        worst.epoch,
        worst.step,
        point.checkpoint if point else None,
        any(found.resumable for found in exits),
    )


def _why_without_exit(layout: RunLayout, number: int, code: int | None) -> str:
    words = last_message(layout.attempt_log(number))
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        hint = ", perhaps by the kernel for lack of memory" if -code == signal.SIGKILL else ""
        return f"killed by {name}{hint}" + (f"; last words: {words}" if words else "")
    if code == 0:
        step = last_step(layout.steps(number))
        text = "it ended with status 0, but no Ultralytics train() was seen in it"
        if step is not None:
            where = f"in epoch {step.epoch}, after step {step.step}"
            text = f"its process ended {where} with status 0 before train() had returned (os._exit?)"
        return text + (f"; last words: {words}" if words else "")
    return words or f"ended without a word (exit status {code})"


def blamed(ending: Ending, because: str) -> Ending:
    """Return the ending with what became of another host as its reason, where ranks only broke off."""
    if not because or ending.outcome not in (FAILED, LOST):
        return ending
    return replace(ending, outcome=FAILED, text=because)


def last_message(path: Path) -> str:
    """Return the line of a log that says why: the last error that is no echo of another, else the last
    line.
    """
    text = without_sequences(tail_text(path))
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    errors = [found[1] for line in lines if (found := ERROR.match(line)) and not _echo(found[1])]
    words = [line for line in lines if not LINE.match(line)]
    return printable(errors[-1] if errors else words[-1] if words else "", 400)


def _echo(error: str) -> bool:
    return any(name in error.split(":")[0] for name in NOT_THE_CAUSE)
