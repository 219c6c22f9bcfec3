"""May this host take part? Every difference to the leading host in one line each, before anything starts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from nantui import entry_points
from nantui.errors import FAILED, UserError
from nantui.machine.training_python import training_python
from nantui.run.attempts import Attempt
from nantui.run.documents import JsonObject
from nantui.run.layout import RunLayout
from nantui.supervisor.helper_process import helper
from nantui.supervisor.hosts.endpoint import reach
from nantui.supervisor.state import read_state

CLOCK_S = 5.0
HEARD_S = 12.0
POLL_S = 0.05
Pump = Callable[[float], None]


def gather_facts(data: object, python: str, pump: Pump = time.sleep) -> JsonObject:
    """Return what must be the same everywhere, as `python` sees it. Raises UserError without an answer."""
    return helper(entry_points.DATA_SET_DIGEST, {"data": str(data)}, python=python, pump=pump)


def python_here(attempt: Attempt, asked: str | None) -> str:
    """Return the interpreter that trains on this host: as asked, else the leading host's where it exists."""
    return training_python(asked, attempt.python if os.access(attempt.python, os.X_OK) else None)


def differences(attempt: Attempt, device: str, python: str, pump: Pump = time.sleep) -> list[str]:
    """Return why this host cannot take part in `attempt`; empty when it can."""
    try:
        here = gather_facts(attempt.train.get("data"), python, pump)
    except UserError as error:
        return [str(error)]
    found = [*_versions(attempt.facts, here), *_images(attempt.facts, here)]
    there = str(attempt.train.get("device") or "")
    if ("cpu" in device) != ("cpu" in there):
        text = f"device={device or 'GPU'} here and device={there or 'GPU'} on the leading host do not mix"
        found.append(text)
    if why := reach(attempt.endpoint):
        found.append(f"{attempt.endpoint} cannot be reached from here: {why}")
    return found


def owners(layout: RunLayout, number: int) -> list[str]:
    """Return which files that decide what connects where are not this user's own."""
    found = []
    for path in (layout.spec, layout.supervisor, layout.attempt(number)):
        try:
            owner = os.stat(path).st_uid
        except OSError as error:
            found.append(f"{path}: {error.strerror}")
            continue
        if owner != os.getuid():
            found.append(f"{path} belongs to user {owner}, you are {os.getuid()}: join as the run's owner")
    return found


def clock(path: Path, now: Callable[[], float] = time.time, wait_s: float = HEARD_S) -> str:
    """Compare this clock with that of the leading host, at its next heartbeat; returns what is wrong."""
    first = read_state(path)
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        state = read_state(path)
        if state is not None and first is not None and state.heartbeat != first.heartbeat:
            ahead = now() - state.heartbeat
            if abs(ahead) <= CLOCK_S:
                return ""
            return f"this clock is {ahead:+.0f} s off that of {state.machine.host}: synchronise them (NTP)"
        time.sleep(POLL_S)
    return "the leading host's supervisor has not been heard of: act there first"


def refuse(found: list[str]) -> None:
    """Raise UserError with all differences, when there are any."""
    if found:
        raise UserError("; ".join(found) + "; nothing was started", FAILED)


def _versions(there: JsonObject, here: JsonObject) -> list[str]:
    wanted, own = there.get("versions") or {}, here.get("versions") or {}
    return [
        f"{name} is {own.get(name)} here and {word} on the leading host"
        for name, word in wanted.items()
        if own.get(name) != word
    ]


def _images(there: JsonObject, here: JsonObject) -> list[str]:
    """Where the leading host could not list the images (a data set by name) there is nothing to compare."""
    wanted, own = there.get("images") or {}, here.get("images") or {}
    if wanted and here.get("error"):
        return [f"the data set is not readable here: {here['error']}"]
    return [
        f"{split}: {(own.get(split) or {}).get('count', 0)} images here, {found['count']} on the leading host"
        + (", of other names" if (own.get(split) or {}).get("count") == found["count"] else "")
        for split, found in wanted.items()
        if own.get(split) != found
    ]
