"""docs/versions.md, written by `make matrix` from what it found, in the words of the checks themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.versions import ROOMS, TRAINING_CHECKS, Found

HEAD = """# Versions

Written by `make matrix` ({machine}): every row is an environment of its own, with the packages of its time,
made and removed by the command. For older releases nantui itself runs in its own environment and trains with
the other interpreter (`--python`); the trainings are real, small, and on the CPU.
"""
TRAINED = """
## Ultralytics
What each check does:
{checks}

| environment | {columns} |
| --- | {rules} |
"""
WITHOUT = """
## What needs no torch
The tests of each room that neither import torch nor train, under each Python; *lowest* has the oldest version
of every dependency that nantui's own bounds allow (`uv pip install --resolution lowest-direct`).

| environment | {columns} |
| --- | --- | {rules} |
"""


def page(told: Mapping[str, Sequence[Found]], machine: str) -> str:
    """Return the page for the rows that were tried."""
    text = HEAD.format(machine=machine)
    trained = {
        name: found for name, found in told.items() if any(one.check in TRAINING_CHECKS for one in found)
    }
    if trained:
        checks = "\n".join(f"- *{name}*: {what}" for name, what in TRAINING_CHECKS.items())
        text += _table(TRAINED, trained, ["versions", *TRAINING_CHECKS], checks=checks)
    other = {name: found for name, found in told.items() if any(one.check in ROOMS for one in found)}
    if other:
        text += _table(WITHOUT, other, ["versions", *ROOMS])
    return text


def _table(head: str, rows: Mapping[str, Sequence[Found]], columns: Sequence[str], **more: str) -> str:
    lines = head.format(columns=" | ".join(columns), rules=" | ".join("---" for _ in columns), **more)
    for name, found in rows.items():
        by_check = {one.check: one for one in found}
        cells = (_cell(by_check.get(column)) for column in columns)
        lines += f"| {name} | {' | '.join(cells)} |\n"
    return lines


def _cell(found: Found | None) -> str:
    if found is None:
        return "not tried"
    detail = found.detail.replace("|", "\\|")
    if not found.good:
        return f"**failed**: {detail}"
    return detail if found.says else "held"
