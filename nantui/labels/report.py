"""What a label check found, and how it is told: counts, the first lines, JSON and CSV.

While it lasts, a progress line with rate and ETA stands on stderr, only where somebody sits at a terminal.
"""

from __future__ import annotations

import csv
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TextIO

from nantui.labels.problem_kinds import ERROR, KINDS, NOTE, WARNING
from nantui.run.documents import Document
from nantui.terminal_text import escaped, escaped_json
from nantui.words import count


class Issue(NamedTuple):
    """One finding: `line` counts from 1 and is 0 for the whole file."""

    file: str
    line: int
    kind: str
    text: str


@dataclass
class LabelReport:
    """The outcome of a check, of a whole data set or of a batch of files.

    `images` looked at, `labels` files read, `boxes` rows in them; `dropped` are the images that Ultralytics
    would leave out, `kept_boxes` and `kept_polygons` the rows of the others; `image_of` names the image of
    each label file with an error.
    """

    data: str = ""
    task: str = ""
    images: int = 0
    labels: int = 0
    boxes: int = 0
    issues: list[Issue] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    image_of: dict[str, str] = field(default_factory=dict)
    kept_boxes: int = 0
    kept_polygons: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def add(self, part: LabelReport) -> None:
        """Take over what was found in a batch of the files."""
        self.labels += part.labels
        self.boxes += part.boxes
        self.kept_boxes += part.kept_boxes
        self.kept_polygons += part.kept_polygons
        self.issues += part.issues
        self.dropped += part.dropped
        self.image_of |= part.image_of

    @property
    def counts(self) -> dict[str, int]:
        """Return how often each kind was found, the bad ones first."""
        found = Counter(issue.kind for issue in self.issues)
        names = sorted(found, key=lambda name: (_rank(name), -found[name], name))
        return {name: found[name] for name in names}

    @property
    def errors(self) -> int:
        """Return how many findings are errors: wrong labels, whatever Ultralytics does with them."""
        return sum(count for name, count in self.counts.items() if KINDS[name].severity == ERROR)

    @property
    def blocked(self) -> bool:
        return any(KINDS[name].blocks for name in self.counts)

    def worst(self, limit: int = 20) -> list[Issue]:
        """Return the first `limit` findings, errors before warnings before notes."""
        return heapq.nsmallest(limit, self.issues, key=lambda issue: _rank(issue.kind))  # which is stable

    def decoded(self, asked: Collection[str], undecodable: Collection[str]) -> None:
        """Take over what Ultralytics' reader said of images of unusual modes."""
        kept = [one for one in self.issues if one.kind != "image_unusual" or one.file not in asked]
        text = "Ultralytics' reader gives nothing for it"
        self.issues = [*kept, *(Issue(path, 0, "image_undecodable", text) for path in undecodable)]
        self.image_of.update({path: path for path in undecodable})

    def faulty_images(self) -> list[str]:
        """Return the images with at least one error, in or beside their label file."""
        wrong = (issue.file for issue in self.issues if KINDS[issue.kind].severity == ERROR)
        return list(dict.fromkeys(self.image_of[file] for file in wrong if file in self.image_of))

    def head(self) -> Document:
        """Return everything but the issues, as `nantui labels --json` has it."""
        return {
            "data": self.data, "task": self.task, "images": self.images, "labels": self.labels,
            "boxes": self.boxes, "errors": self.errors, "counts": self.counts, "dropped": self.dropped,
            "blocked": self.blocked, "seconds": round(self.seconds, 3),
        }  # fmt: skip


def _rank(kind: str) -> int:
    return (ERROR, WARNING, NOTE).index(KINDS[kind].severity)


def write_json(report: LabelReport, out: TextIO) -> None:
    """Write the report as one JSON document, issue by issue: there can be a million of them.

    In ASCII, so that file names which are not UTF-8 can be written too.
    """
    head = escaped_json(json.dumps(report.head(), indent=2))
    out.write(head[: head.rindex("\n}")] + ',\n  "issues": [')
    for number, (file, line, kind, text) in enumerate(report.issues):
        row = {"file": file, "line": line, "kind": kind, "severity": KINDS[kind].severity, "text": text}
        out.write(("," if number else "") + "\n    " + escaped_json(json.dumps(row)))
    out.write("\n  ]\n}\n" if report.issues else "]\n}\n")


def write_csv(report: LabelReport, out: TextIO) -> None:
    """Write the findings as CSV with a header line; what no terminal is to get, as backslash escapes."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("file", "line", "kind", "severity", "text", "ultralytics"))
    for file, line, name, text in report.issues:
        kind = KINDS[name]
        writer.writerow((escaped(file), line, name, kind.severity, escaped(text), kind.ultralytics))


def summary(report: LabelReport, limit: int = 20) -> Iterator[str]:
    """Yield the report as lines for people."""
    rate = report.labels / report.seconds if report.seconds else 0
    files, rows = count(report.labels, "label file"), count(report.boxes, "row")
    begin, took = f"{report.data} ({report.task}): {count(report.images, 'image')}", f"{report.seconds:.1f} s"
    yield f"{begin}, {files}, {rows} in {took} ({rate:,.0f} files/s)"
    if report.stopped:
        yield "stopped early: what follows is not everything"
    yield from _table(report.counts)
    if report.dropped:
        yield f"Ultralytics drops {count(len(report.dropped), 'image')} and trains without."
    if report.blocked:
        yield "Ultralytics refuses to train on this data set as it is."
    worst = report.worst(limit)
    if worst:
        of = f"of {count(len(report.issues), 'finding')} (all: --json or --csv):"
        yield "" if len(worst) == len(report.issues) else f"the first {len(worst)} {of}"
        for file, number, name, text in worst:
            yield f"  {file}{f':{number}' if number else ''}: {name}: {text}"
    elif not report.issues:
        yield "nothing wrong"


def _table(counts: dict[str, int]) -> Iterable[str]:
    width = max((len(f"{found:,}") for found in counts.values()), default=0)
    for name, found in counts.items():
        kind = KINDS[name]
        yield f"  {kind.severity:<7}  {found:>{width},}  {name}: {kind.title}"
        yield f"  {'':<7}  {'':>{width}}  Ultralytics {kind.ultralytics}; {kind.danger}"


def progress_line(out: TextIO) -> Callable[[int, int], bool]:
    """Return what shows (done, total) files, rate and time left on a terminal; it never asks to stop."""
    begun = time.monotonic()

    def show(done: int, total: int) -> bool:
        rate = done / max(time.monotonic() - begun, 1e-9)
        left = f"{rate:,.0f}/s, {(total - done) / rate:.0f} s left"
        print(f"\r{done:,}/{total:,} files, {left}\x1b[K", end="", file=out, flush=True)
        return False

    return show
