"""The config editor without a terminal: which rows there are, what is wrong, what is said about a setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nantui.settings.values import show_value
from nantui.ui.data.draft import Draft
from nantui.ui.format import clean
from nantui.ui.glyphs import Glyphs
from nantui.ui.ink import Line, column, fit, wrap

HIDDEN = frozenset({"save_dir", "mode", "task"})


@dataclass(frozen=True)
class Entry:
    """A heading (`field` None) or a setting."""

    group: str
    field: Any = None

    @property
    def key(self) -> str:
        return f"# {self.group}" if self.field is None else str(self.field.name)


def entries(schema: Any, draft: Draft, wanted: str = "", changed_only: bool = False) -> list[Entry]:
    """Return the rows: groups with their settings, narrowed down by search or to what was changed."""
    groups: dict[str, list[Entry]] = {}
    for field in schema.fields.values():
        if not field.for_training or field.name in HIDDEN:
            continue
        if changed_only and field.name not in draft.changes:
            continue
        if wanted and wanted.lower() not in f"{field.name} {field.help}".lower():
            continue
        groups.setdefault(field.group, []).append(Entry(field.group, field))
    return [entry for group, below in groups.items() for entry in (Entry(group), *below)]


def next_value(field: Any, value: Any) -> Any:
    """Return the next choice of a setting with few values: the other of yes and no, the next word.
    Else None.
    """
    if field.choices:
        choices = list(field.choices)
        return choices[(choices.index(value) + 1) % len(choices)] if value in choices else choices[0]
    return (not value) if isinstance(value, bool) and "bool" in field.types else None


def row(entry: Entry, draft: Draft, findings: Mapping[str, str], glyphs: Glyphs, width: int) -> Line:
    """Return one row of the list."""
    if entry.field is None:
        name = entry.group
        return [(f"{clean(name, 40)} ", "title"), (glyphs.rule * max(0, width - len(name) - 1), "rule")]
    name = entry.field.name
    changed = name in draft.changes
    value = clean(show_value(draft.value(name)), 80)
    sign = glyphs.warn if findings.get(name) == "warning" else glyphs.mark if changed else " "
    line: Line = [
        (f"{sign} ", "warn" if findings.get(name) == "warning" else "accent"),
        (column(name, 18), "strong" if changed else "text"),
    ]
    line.append((f" {value}", "accent" if changed else "muted"))
    if changed:
        line.append((f"  was {clean(show_value(draft.before(name)), 60)}", "faint"))
    elif draft.waits(name):
        line.append((f"  from the next start on, now {clean(show_value(draft.in_effect(name)), 60)}", "info"))
    return fit(line, width)


def about(entry: Entry | None, draft: Draft, findings: Iterable[Any], width: int) -> list[Line]:
    """Return what is known about the setting under the cursor."""
    if entry is None:
        return []
    if entry.field is None:
        return [[(entry.group, "title")]]
    field = entry.field
    lines: list[Line] = [[(field.name, "title"), (f"   {field.type}" if field.types else "", "muted")]]
    lines += [[], *wrap(clean(field.help, 600) or "no description", width)]
    facts = [
        ("accepts", field.expects()),
        ("default", show_value(field.default)),
        ("in effect", show_value(draft.in_effect(field.name)) + _chosen(field.name, draft)),
    ]
    if draft.waits(field.name):
        facts.append(("saved", f"{show_value(draft.saved[field.name])}, from the next start on"))
    if field.name in draft.changes:
        facts.append(("draft", show_value(draft.changes[field.name])))
    lines.append([])
    for name, text in facts:
        lines += [
            [(column(name if first else "", 11), "muted"), *line]
            for first, line in _first(wrap(clean(text, 300), width - 11))
        ]
    if field.ours:
        lines += [[], *wrap("nantui's own: a plain `yolo train` knows nothing of it", width, "info")]
    if why := draft.why.get(field.name):
        lines += [[], *wrap(clean(why, 400), width, "info")]
    for finding in findings:
        if finding.name == field.name:
            lines += [
                [],
                *wrap(clean(finding.text, 500), width, "warn" if finding.severity == "warning" else "info"),
            ]
    return lines


def _first(lines: list[Line]) -> list[tuple[bool, Line]]:
    return [(index == 0, line) for index, line in enumerate(lines)]


def _chosen(name: str, draft: Draft) -> str:
    if name not in draft.now.chosen:
        return ""
    asked = "" if name == "optimizer" else f"; {name}={show_value(draft.now.next_start.get(name))} is ignored"
    return f"  (optimizer=auto chose it{asked})"
