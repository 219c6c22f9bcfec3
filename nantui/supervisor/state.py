"""supervisor.json: who holds a run and where it stands, written by the supervisor only, read by everybody."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nantui.machine.process_identity import Machine, ProcessRef, machine_from, ref_from
from nantui.run.atomic_files import read_json, read_text, to_json, write_atomic, write_json
from nantui.run.commands import local_copies
from nantui.run.documents import known_fields
from nantui.run.events import Event, parse_lines
from nantui.run.layout import RunLayout
from nantui.run.status import STARTING

FORMAT = 1


@dataclass(frozen=True)
class SupervisorState:
    """One snapshot. `heartbeat` and `since` are s since the epoch; `worker` is the process the supervisor
    started.
    """

    process: ProcessRef
    machine: Machine
    heartbeat: float = 0.0
    state: str = STARTING
    attempt: int | None = None
    attempt_uuid: str = ""
    worker: ProcessRef | None = None
    since: float = 0.0
    text: str = ""
    doing: dict[str, object] | None = None
    last_incident: dict[str, object] | None = None
    guarded: bool | None = None
    ending: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the document as docs/file-formats.md describes it."""
        own = asdict(self)
        return {"format": FORMAT, **own.pop("process"), **own.pop("machine"), **own}

    def but(self, **changes: Any) -> SupervisorState:
        """Return the same with `changes`."""
        return replace(self, **changes)


def write_state(path: Path, state: SupervisorState) -> None:
    """Replace supervisor.json; where the disk refuses, a copy on this host. Raises OSError for the first."""
    beside = _copy_of(path)
    try:
        write_json(path, state.to_json())
    except OSError:
        with contextlib.suppress(OSError):
            beside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(beside, state.to_json())
        raise
    beside.unlink(missing_ok=True)


def _copy_of(path: Path) -> Path:
    return local_copies(RunLayout(path.parent.parent)) / path.name


def keep_unwritten(layout: RunLayout, entries: Sequence[Mapping[str, Any]]) -> None:
    """Keep the journal's lines that its disk refuses, on this host; none any more removes them."""
    path = local_copies(layout) / layout.journal.name
    with contextlib.suppress(OSError):
        if entries:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, "".join(to_json(entry) + "\n" for entry in entries))
        else:
            path.unlink(missing_ok=True)


def unwritten_lines(layout: RunLayout) -> list[str]:
    """Return the journal's lines that wait on this host."""
    return (read_text(local_copies(layout) / layout.journal.name) or "").splitlines()


def unwritten_events(layout: RunLayout) -> list[Event]:
    """Return them as events."""
    return parse_lines(unwritten_lines(layout))


def read_state(path: Path) -> SupervisorState | None:
    """Return what supervisor.json says, or the newer copy on this host; None without one that is whole."""
    both = [state for file in (path, _copy_of(path)) if (state := _read(file)) is not None]
    return max(both, key=lambda state: state.heartbeat, default=None)


def _read(path: Path) -> SupervisorState | None:
    document = read_json(path)
    process = ref_from(document)
    if document is None or process is None:
        return None
    own = {"process": process, "machine": machine_from(document), "worker": ref_from(document.get("worker"))}
    return known_fields(SupervisorState, {"state": "", **document, **own})
