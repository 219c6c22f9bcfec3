"""What was measured, kept: a line of JSON a pair as it ends, and the packed corpus that the tests read."""

from __future__ import annotations

import fcntl
import gzip
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "data" / "healthy"
Record = dict[str, Any]


def append(path: Path, record: Record) -> None:
    """Add a line in one write; other processes may append to the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record, separators=(",", ":")) + "\n")


def read_rows(folder: Path) -> dict[str, Record]:
    """Return the records in a folder's .jsonl files by name; a torn last line is left out."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found[record["name"]] = record
    return found


def read_corpus(folder: Path = CORPUS) -> dict[str, Record]:
    """Return the recorded corpus by name."""
    return {record["name"]: record for path in sorted(folder.glob("*.jsonl.gz")) for record in _packed(path)}


def _packed(path: Path) -> Iterator[Record]:
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        yield json.loads(line)


def write_corpus(records: Iterable[Record], folder: Path = CORPUS) -> None:
    """Write one file a part; the same records give the same bytes."""
    parts: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda one: str(one["name"])):
        parts.setdefault(record["part"], []).append(record)
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        (folder / f"{part}.jsonl.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def short(value: float) -> float | str:
    """Return a number with five digits; what JSON cannot hold as its name, which `float` reads."""
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)
