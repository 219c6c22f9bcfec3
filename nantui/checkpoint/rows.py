"""A look as plain JSON values and back: for the cache on disk and for helper processes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nantui.checkpoint.facts import Contents, Look, Metadata, Suspect
from nantui.checkpoint.verdict import Finding


def row_of(seen: Look) -> dict[str, Any]:
    """Return a look as JSON values. The results of all epochs, used for judging only, are left out."""
    found = seen.contents
    said = {key: value for key, value in vars(found.metadata).items() if key not in ("results", "bad_state")}
    return {
        "findings": rows_of(found.findings),
        "metadata": said,
        "suspects": [asdict(suspect) for suspect in found.suspects],
        "stamp": seen.stamp,
        "moving": seen.moving,
        "bytes": seen.bytes,
        "seconds": seen.seconds,
    }


def look_of(row: dict[str, Any]) -> Look:
    """Return the look that a row describes. Raises KeyError, TypeError or ValueError for any other row."""
    found = Contents(
        findings_of(row["findings"]),
        Metadata(**row["metadata"]),
        tuple(_suspect(**suspect) for suspect in row["suspects"]),
    )
    device, inode, size, modified = row["stamp"] or (0, 0, 0, 0)
    stamp = (device, inode, size, modified) if row["stamp"] else None
    return Look(found, stamp, row["moving"], row["bytes"], row["seconds"])


def rows_of(findings: tuple[Finding, ...]) -> list[list[str]]:
    """Return findings as lists of three texts."""
    return [[finding.kind, finding.where, finding.detail] for finding in findings]


def findings_of(rows: list[list[str]]) -> tuple[Finding, ...]:
    """Return the findings that such lists describe."""
    return tuple(Finding(*row) for row in rows)


def _suspect(name: str, kind: str, rows: list[int], shape: list[int]) -> Suspect:
    return Suspect(name, kind, tuple(rows), tuple(shape))
