"""What is told (run, epoch, metric, reason, remedy taken, and the curve in 40 columns of text), and how it is
handed over: what came back is said without a word of the URL.

The facts are read when a message leaves. A run on a mount that is away has none, and is told of all the same.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.request import Request, urlopen

from nantui.run.events import RollbackBegun, RollbackDone, newest, of_kind
from nantui.run.record import read_run
from nantui.supervisor.config import RECOVERED, REWOUND
from nantui.supervisor.notify.outbox import Note, Way
from nantui.supervisor.status import read_status
from nantui.terminal_text import printable
from nantui.words import count

TIMEOUT_S = 20.0
SHORTEST_SECRET = 4
_ONE = Lock()
"""Apprise has one log for all of its services: what one says must not be kept under another's name."""
Message = Mapping[str, str]
"""`run`, `event` and `text` of the weightiest note, `title` and `body` of all, and their `ids`, by which a
receiver knows what it was told already: an answer that is lost on its way is not known here."""
COLUMNS, BARS = 40, "▁▂▃▄▅▆▇█"
MOST_LINES, FACTS_S = 10, 10.0
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
        "ids": " ".join(note.id for note in notes), "run": first.run, "event": first.event,
        "text": first.text + also, "title": printable(f"nantui: {Path(first.run).name} {first.event}{also}"),
        "body": "\n".join(map(printable, [*lines, first.run, *_facts_in_time(Path(first.run))])),
    }  # fmt: skip


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


class NotDelivered(Exception):
    """The message was not taken; the text says why and holds no part of a URL."""


def deliver(way: Way, message: Message) -> str:
    """Hand `message` over, or ask for a heartbeat; returns what came back. Raises NotDelivered."""
    try:
        if way.command:
            words, off = [filled(word, message) for word in way.command], subprocess.DEVNULL
            subprocess.run(words, timeout=TIMEOUT_S, check=True, stdout=off, stderr=off)
            return "exit status 0"
        if not way.web:
            return _by_apprise(way, message)
        body = None if way.heartbeat else json.dumps(message).encode()
        request = Request(way.url, body, {"Content-Type": "application/json"} if body else {})
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            return f"HTTP {answer.status}"
    except subprocess.CalledProcessError as error:
        raise NotDelivered(f"exit status {error.returncode}") from None
    except (OSError, HTTPException, ValueError, subprocess.TimeoutExpired) as error:
        said = str(error).strip("<>").removeprefix("urlopen error ")
        raise NotDelivered(blotted(said or type(error).__name__, way)) from None
    except Exception as error:  # of a library: a notifier must never do more harm than not to notify
        raise NotDelivered(type(error).__name__) from None


def filled(word: str, message: Message) -> str:
    """Replace {run}, {event}, {text}, {title}, {body} and {ids}; other braces are left alone."""
    return re.sub(r"\{(\w+)\}", lambda found: message.get(found[1], found[0]), word)


def service_of(way: Way) -> Any:
    """Return Apprise's service for a URL. Raises ValueError where it knows none, or is not installed."""
    try:
        import apprise
    except ImportError:
        raise ValueError("Apprise is not installed: pip install 'nantui[alerts]'") from None
    logging.getLogger(apprise.__name__).handlers = [logging.NullHandler()]  # it may repeat the URL
    service = apprise.Apprise.instantiate(way.url, suppress_exceptions=True)
    if service is None:
        raise ValueError("no service that Apprise knows, or not the whole of its URL")
    return service


def _by_apprise(way: Way, message: Message) -> str:
    service = service_of(way)
    import apprise

    with _ONE, apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:
        plain = apprise.NotifyFormat.TEXT
        if apprise.Apprise(service).notify(title=message["title"], body=message["body"], body_format=plain):
            return "taken"
        raise ValueError(" ".join(said.getvalue().split()))


def blotted(text: str, way: Way) -> str:
    """Return text for people without any part of the URL or command."""
    secret = way.url.partition("://")[2] or " ".join(way.command)
    for part in sorted(re.split(r"[^\w.-]+", secret), key=len, reverse=True):
        if len(part) >= SHORTEST_SECRET:
            text = text.replace(part, "…")
    return printable(text)[:300]
