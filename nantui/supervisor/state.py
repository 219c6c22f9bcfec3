"""supervisor.json: who holds a run and where it stands, written by the supervisor only, read by everybody."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from nantui.machine.process_identity import Machine, ProcessRef, machine_from, ref_from
from nantui.run.atomic_files import read_json, write_json
from nantui.run.status import STARTING

FORMAT = 1
Value = TypeVar("Value")


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
    """Replace supervisor.json."""
    write_json(path, state.to_json())


def read_state(path: Path) -> SupervisorState | None:
    """Return what supervisor.json says, None where there is none or it is broken."""
    document = read_json(path)
    process = ref_from(document)
    if document is None or process is None:
        return None
    return SupervisorState(
        process,
        machine_from(document),
        heartbeat=_number(document.get("heartbeat")),
        state=str(document.get("state", "")),
        attempt=_of(int, document.get("attempt")),
        attempt_uuid=str(document.get("attempt_uuid") or ""),
        worker=ref_from(document.get("worker")),
        since=_number(document.get("since")),
        text=str(document.get("text") or ""),
        doing=_of(dict, document.get("doing")),
        last_incident=_of(dict, document.get("last_incident")),
        guarded=_of(bool, document.get("guarded")),
        ending=str(document.get("ending") or ""),
    )


def _of(kind: type[Value], value: object) -> Value | None:
    return value if isinstance(value, kind) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
