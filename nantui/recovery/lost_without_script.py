"""What a training loses when nantui's own runner goes on with it instead of the script that began it.

Nobody can see in a run directory what a script did besides training. What is known is named (the guard
reports a trainer class, callbacks and a data set class of the script's own); what cannot be known is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nantui.errors import UserError
from nantui.run.record import RunRecord
from nantui.settings.schema import Schema

UNKNOWN = "whatever its script adds: a trainer class, callbacks, loggers, changes to data set or model"


def lost_with_our_runner(record: RunRecord, schema: Schema | None = None) -> list[str]:
    """Return what would be lost, one thing a line; nothing where our runner trains already."""
    spec = record.spec
    if spec is not None and spec.kind != "exec":
        return []
    lost = []
    if spec is not None:
        lost.append(f"its own script: {' '.join(map(str, (spec.exec or {}).get('argv') or []))}")
    own = own_parts(record)
    lost += own if own is not None else [UNKNOWN]
    unknown = unknown_settings(record.args, schema)
    return [*lost, *(f"{name}, a setting that this Ultralytics does not know" for name in unknown)]


def own_parts(record: RunRecord) -> list[str] | None:
    """Return the script's own parts as the newest guarded attempt reported them, None where none did."""
    for attempt in reversed(record.attempts):
        if attempt.in_effect is not None and attempt.in_effect.own is not None:
            return list(attempt.in_effect.own)
    return None


def unknown_settings(args: Mapping[str, object], schema: Schema | None) -> list[str]:
    """Return the names in args.yaml that the installed Ultralytics does not have."""
    return list(_unknown(args, schema)) if schema else []


def _unknown(args: Mapping[str, object], schema: Schema) -> Iterator[str]:
    for name in args:
        try:
            schema.field(str(name))
        except UserError:
            yield str(name)
