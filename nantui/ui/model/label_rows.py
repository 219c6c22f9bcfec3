"""Rows of the label check: kinds with what they do to training, and single findings."""

from __future__ import annotations

from nantui.labels.report import Issue, LabelReport
from nantui.ui.format import clean
from nantui.ui.styled_text import Line, column, fit
from nantui.words import count

SEVERITY_INKS = {"error": "bad", "warning": "warn", "note": "info"}


def kind_line(found: tuple[str, int], width: int) -> Line:
    """Return a kind of finding, and how often it was found, as one line."""
    from nantui.labels.problem_kinds import KINDS

    name, number = found
    kind = KINDS[name]
    severity = (column(kind.severity, 9), SEVERITY_INKS.get(kind.severity, "text"))
    told: Line = [severity, (f"{number:>9,}  ", "strong"), (column(name, 20), "strong")]
    return fit([*told, (clean(kind.title, 120), "text")], width)


def effect(kind: object) -> Line:
    """Return what Ultralytics does with findings of a kind."""
    from nantui.labels.problem_kinds import KINDS

    return [(f"   Ultralytics {clean(KINDS[str(kind)].ultralytics, 200)}", "info")] if kind in KINDS else []


def issue_line(issue: Issue, width: int) -> Line:
    """Return a finding as one line; of a long path the end is kept."""
    place = clean(f"{issue.file}:{issue.line}" if issue.line else issue.file, 1000)
    room = max(12, width // 2)
    shown = place if len(place) <= room else ".." + place[-(room - 2) :]
    return fit([(column(shown, min(room, len(shown)) + 2), "text"), (clean(issue.text, 400), "muted")], width)


def headline(report: LabelReport) -> Line:
    """Return the outcome in one line."""
    ink = "bad" if report.errors else "good"
    return [
        (count(report.errors, "error"), ink),
        (
            f"   {count(report.images, 'image')}, {count(report.labels, 'label file')}"
            f", {count(report.boxes, 'row')}",
            "muted",
        ),
        (f"   {report.seconds:.1f} s", "faint"),
    ]
