"""What is told: run, epoch, metric, reason, remedy taken, and the curve in 40 columns of text.

The facts are read when a message leaves. A run on a mount that is away has none, and is told of all the same.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Thread

from nantui.run.events import RollbackBegun, RollbackDone, newest, of_kind
from nantui.run.record import read_run
from nantui.supervisor.config import RECOVERED, REWOUND
from nantui.supervisor.notify.outbox import Note
from nantui.supervisor.status import read_status
from nantui.terminal_text import printable
from nantui.words import count

Message = Mapping[str, str]
"""`run`, `event` and `text` of the weightiest note, `title` and `body` of all, and their `ids`, by which a
receiver knows what it was told already: an answer that is lost on its way is not known here."""
COLUMNS, BARS = 40, "▁▂▃▄▅▆▇█"
MOST_LINES = 10
FACTS_S = 10.0
ROUTINE = frozenset({"incident", "suspicion", RECOVERED, REWOUND})
"""What can wait to be told together; anything else is an end or a standstill."""


def compose(notes: Sequence[Note]) -> Message:
    """Return one message of at least one note, oldest first."""
    first = next((note for note in reversed(notes) if note.event not in ROUTINE), notes[-1])
    also = f" (and {count(len(notes) - 1, 'other event')})" if len(notes) > 1 else ""
    lines = [f"… {count(len(notes) - MOST_LINES, 'earlier event')}"] if len(notes) > MOST_LINES else []
    for note in notes[-MOST_LINES:]:
        when, name = time.strftime("%H:%M:%S", time.localtime(note.t)), Path(note.run).name
        lines.append(f"{when} {f'{name} ' if note.run != first.run else ''}{note.event}: {note.text}")
    return {
        "ids": " ".join(note.id for note in notes),
        "run": first.run,
        "event": first.event,
        "text": first.text + also,
        "title": printable(f"nantui: {Path(first.run).name} {first.event}{also}"),
        "body": "\n".join(map(printable, [*lines, first.run, *_facts_in_time(Path(first.run))])),
    }


def _facts_in_time(run: Path) -> list[str]:
    found: list[str] = []

    def read() -> None:
        with contextlib.suppress(Exception):  # a broken run is told of without facts, rather than not at all
            found.extend(facts(run))

    reader = Thread(target=read, daemon=True)
    reader.start()
    reader.join(FACTS_S)
    return list(found)


def facts(run: Path) -> Iterator[str]:
    """Yield where the run stands, what the last rollback made of it, and its curve."""
    status, record = read_status(run), read_run(run)
    epoch = f"epoch {status.epoch}/{status.epochs or '?'}" if status.epoch else ""
    yield ", ".join(filter(None, [status.state, epoch, status.metric.words if status.metric else ""]))
    done = newest(record.journal, RollbackDone)
    for begun in of_kind(record.journal, RollbackBegun):
        if done is not None and begun.id == done.id:
            changed = [f"{name}={value}" for name, value in begun.changed.items()]
            yield "remedy: " + ", ".join([f"back to {begun.restore_point}", *begun.presets, *changed])
    metric = f"{status.metric.name}(" if status.metric else " "
    column = next((name for row in record.epochs for name in row.values if metric in f"{name}("), "")
    if values := [row.values[column] for row in record.epochs if column in row.values]:
        yield f"{metric[:-1]} {curve(values)} {count(len(values), 'epoch')}"


def curve(values: Sequence[float]) -> str:
    """Return values as a line of at most 40 bars, each the last value of its share; `×` is not finite."""
    share = -(-len(values) // COLUMNS)
    shown = [values[min(i + share, len(values)) - 1] for i in range(0, len(values), share)]
    finite = [value for value in shown if math.isfinite(value)] or [0.0]
    scale = (len(BARS) - 1) / ((max(finite) - min(finite)) or 1.0)
    bars = [BARS[round((value - min(finite)) * scale)] if math.isfinite(value) else "×" for value in shown]
    return "".join(bars)
