"""The truth about checkpoints, without running them: files, a `weights/` directory, or whole runs.

Exit status 0 if all of them are clean, 1 if any is not; what a rollback has moved aside is
shown, and does not count.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nantui.checkpoint.catalog import BACKUP, Catalog
from nantui.checkpoint.verdict import Verdict
from nantui.commands import common
from nantui.errors import NO, USAGE, UserError
from nantui.words import aligned

_WORST = {"unreadable": 0, "corrupt": 1, "busy": 2, "clean": 3}
_SHOWN_FINDINGS = 2  # of each kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a .pt, a weights/ or a run")
    common.add_flags(parser, crc="read every byte against its CRC-32: finds bit rot")
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Scan every checkpoint and print a table, worst first, or JSON."""
    found = sorted(_verdicts(arguments), key=lambda verdict: _WORST[verdict.badge])
    asked = {path.absolute() for path in arguments.paths}
    backups = [one for one in found if one.path.parent.name == BACKUP]
    aside = [one for one in backups if asked.isdisjoint((one.path.absolute(), one.path.parent.absolute()))]
    verdicts = [one for one in found if one not in aside]
    document = {"checkpoints": [verdict.to_json() for verdict in (*verdicts, *aside)]}
    common.answer(arguments, document, table(verdicts, aside))
    return 0 if all(verdict.badge == "clean" for verdict in verdicts) else NO


def _verdicts(arguments: argparse.Namespace) -> Iterator[Verdict]:
    catalogs: dict[Path, Catalog] = {}
    for path in arguments.paths:
        weights = _weights(path)
        place = path.parent if weights is None else weights
        catalog = catalogs.setdefault(place, Catalog(place))
        if weights is None:
            yield catalog.verdict(path, crc=arguments.crc)
            continue
        if not catalog.files():
            raise UserError(f"{path}: there is no checkpoint (*.pt) in {weights}", USAGE)
        yield from catalog.verdicts(crc=arguments.crc)


def _weights(path: Path) -> Path | None:
    """Return the directory of checkpoints that `path` means, None for a file."""
    if not path.exists():
        raise UserError(f"{path}: no such file or directory; give a .pt, a weights/ or a run", USAGE)
    if not path.is_dir():
        return None
    return path / "weights" if (path / "weights").is_dir() else path


def table(verdicts: list[Verdict], aside: list[Verdict]) -> list[str]:
    """Return the lines people read: a row per checkpoint, its findings below; of those aside only the row."""
    rows: list[tuple[str, ...]] = [("badge", "resume", "epoch", "fitness", "saved", "size", "file")]
    rows += [_row(verdict) for verdict in (*verdicts, *aside)]
    shown = aligned(rows)
    lines = shown[:1]
    for row, verdict in zip(shown[1:], verdicts, strict=False):
        lines += [row, *(f"    {line}" for line in _remarks(verdict))]
    moved = shown[1 + len(verdicts) :]
    return [*lines, *(["", "moved aside by rollbacks:", *moved] if moved else [])]


def _row(verdict: Verdict) -> tuple[str, ...]:
    resume = "yes" if verdict.resumable else "after repair" if verdict.repairable else "no"
    epoch = "-" if verdict.epoch is None else f"{verdict.epoch} (work of {verdict.epoch + 1})"
    fitness = "-" if verdict.fitness is None else f"{verdict.fitness:.4g}"
    saved = (verdict.date or "-")[:19].replace("T", " ")
    size = f"{verdict.bytes / 1e6:.1f} MB"
    name = str(verdict.path) + ("  (best)" if verdict.best and verdict.path.stem != "best" else "")
    return verdict.badge, resume, epoch, fitness, saved, size, name


def _remarks(verdict: Verdict) -> list[str]:
    lines: list[str] = []
    kinds = Counter(finding.kind for finding in verdict.findings)
    for kind, number in kinds.items():
        some = [finding for finding in verdict.findings if finding.kind == kind][:_SHOWN_FINDINGS]
        lines += [f"{kind}: {finding.where}: {finding.detail}" for finding in some]
        if number > len(some):
            lines.append(f"{kind}: ... and {number - len(some)} more (--json has all)")
    if verdict.badge == "clean" and verdict.why_not_resumable:
        lines.append(f"resume: {verdict.why_not_resumable}")
    return lines
