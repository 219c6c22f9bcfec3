"""What must not happen to a healthy training, each judged from its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.healthy.records import Record

NO_DETERMINISTIC_FORM = "rtdetr"
"""Its grid_sample has none on a GPU: two trainings by plain Ultralytics differ there as well."""

LOSS_SCALE = "loss scale"
"""What a step is skipped for that GradScaler refuses by itself, under the guard as in its control."""


def counts(record: Record) -> bool:
    """Tell whether a training is one that the zeros are about: its control's numbers stay finite."""
    return "finite" not in record["lost_by_control"]


def ended(record: Record) -> str:
    """Return how a training ended that should have gone on, "" where it did."""
    if record["outcome"] == record["expected"]:
        return ""
    return f"{record['outcome']} instead of {record['expected']}, the control {record['control_outcome']}"


def alarms(record: Record) -> str:
    """Return the incidents: there should be none."""
    return "; ".join(f"{kind} in epoch {epoch}, step {step}" for kind, epoch, step, _ in record["incidents"])


def uncaused(record: Record) -> str:
    """Return the steps that were skipped though nothing was wrong."""
    places = [f"{epoch}.{step}" for epoch, step, why in record["skipped"] if not why]
    return f"steps {', '.join(places)}" if places else ""


def is_older(found: dict[str, Any]) -> bool:
    """Tell whether a proposal throws epochs away, or says nothing at all."""
    return found["status"] != 0 or found["work"] is None or found["work"] != found["newest"]


def older(record: Record) -> str:
    """Return what a rollback would throw away, at the training's end or as results.csv stood on the way."""
    found = record["proposal"]
    if is_older(found):
        why = (
            found.get("said")
            or f"{found['to']} holds epoch {found['work']} of {found['newest']}: {found['trouble']}"
        )
        return str(why)
    if record["signs"]:
        after, kind, epoch = record["signs"][0]
        return f"{kind} in epoch {epoch}, as it stood after epoch {after}"
    return ""


def unlike(record: Record) -> str:
    """Return where results.csv differs from the control's though it should not."""
    return "" if apart(record) else differs(record)


def differs(record: Record) -> str:
    """Return where results.csv differs from the control's."""
    if not record["unlike_control"]:
        return ""
    epoch, column, cell, control = record["unlike_control"]
    return f"{column} of epoch {epoch} is {cell}, the control's {control}"


def apart(record: Record) -> str:
    """Return why a training may differ from its control, "" where it may not."""
    if record["timed"]:
        return "time="
    if any(why != LOSS_SCALE for _, _, why in record["skipped"]):
        return "a step was skipped"
    if record["revalidated"]:
        return "a validation was repeated"
    if record["part"] == "gpu" and NO_DETERMINISTIC_FORM in record["values"]["what"]:
        return "no deterministic kernel"
    return ""


COLUMNS: dict[str, Callable[[Record], str]] = {
    "ended": ended,
    "alarms": alarms,
    "skipped without a cause": uncaused,
    "older proposal": older,
    "unlike the control": unlike,
}


def misses(records: Iterable[Record]) -> list[tuple[str, str, str]]:
    """Return (training, column, text) for everything that should be zero and is not."""
    return [
        (record["name"], column, text)
        for record in records
        for column, look in COLUMNS.items()
        if counts(record) and (text := look(record))
    ]
