"""The config editor without a terminal: the settings that a run uses, a draft of other ones, and its rows.

What was asked is not what is in effect: `optimizer=auto` ignores `lr0` and `momentum`, and AMP is switched
off where it does not work; only the worker's own report tells. So there are three values of a setting: what
the newest attempt really uses, what was saved for the next one, and what the draft has. A draft survives a
closed terminal, and each of its steps can be undone; it can be kept as a preset, or taken along as Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nantui.errors import UserError, refused
from nantui.paths import user_config_dir, user_state_dir
from nantui.run.atomic_files import read_json, write_atomic, write_json
from nantui.run.attempts import Attempt
from nantui.run.journal import pending_edits
from nantui.run.record import RunRecord
from nantui.run.spec import to_yaml
from nantui.settings.lint import LintFinding
from nantui.settings.schema import Field, Schema
from nantui.settings.values import same_value, show_value
from nantui.ui.format import clean
from nantui.ui.glyphs import Glyphs
from nantui.ui.model.command_progress import reported_values
from nantui.ui.model.snapshot import RunSnapshot
from nantui.ui.styled_text import Line, column, fit, hanging, wrap

CHOSEN_BY_AUTO = ("lr0", "momentum", "optimizer")
HIDDEN = frozenset({"save_dir", "mode", "task"})
Entry = str | Field
"""A row: the name of a group, or a setting."""


def save_preset(name: str, changes: Mapping[str, object]) -> Path:
    """Write `changes` as a preset that sets exactly these. Raises UserError for a bad or taken name."""
    name = name.strip()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,60}", name):
        raise UserError(f"{name!r}: a preset's name is made of letters, digits, - and _")
    path = user_config_dir() / "presets" / f"{name}.yaml"
    if path.exists():
        raise UserError(f"there is a preset {name} already ({path}); choose another name")
    why, title = "saved from the config editor", f"saved from the config editor: {', '.join(changes)}"
    settings = {key: {"exactly": value, "why": why} for key, value in changes.items()}
    document = {"name": name, "title": title, "settings": settings}
    with refused(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, to_yaml(document))
    return path


def put_aside(preset: Path) -> str:
    """Take a preset away, with what may have been edited in it since; returns what to say."""
    try:
        return f"the preset is put aside as {preset.replace(preset.with_suffix('.yaml.undone'))}"
    except OSError as error:
        return f"cannot put {preset} aside: {error.strerror}"


def as_dict(values: Mapping[str, object]) -> str:
    """Return `settings = dict(...)`, ready for `model.train(**settings)`."""
    lines = [f"    {name}={value!r}," for name, value in values.items()]
    return "\n".join(["settings = dict(", *lines, ")"])


@dataclass(frozen=True)
class SettingsNow:
    """`next_start` is asked for from the next start on, `in_effect` is what the newest attempt uses,
    `saved` waits for the next start, `chosen` are names that `optimizer=auto` chose a value for.
    """

    next_start: Mapping[str, object] = field(default_factory=dict)
    in_effect: Mapping[str, object] = field(default_factory=dict)
    saved: Mapping[str, object] = field(default_factory=dict)
    chosen: frozenset[str] = frozenset()


def read_settings(record: RunRecord, schema: Schema, snapshot: RunSnapshot) -> SettingsNow:
    """Return what is known about the settings of a run; reads files, for a thread.
    Raises UserError for a spec that makes no sense.
    """
    journal = snapshot.journal
    args, spec, attempt, edits = record.args, record.spec, record.standing.asked, pending_edits(journal)
    train, ours = (spec.train, spec.ours) if spec is not None else ({}, {})
    asked = {**schema.defaults(), **train, **args, **ours}
    reported = reported_values(journal)
    used = asked if attempt is None else {**schema.defaults(), **_used(attempt, args, reported)}
    automatic = str(asked.get("optimizer", "")).lower() == "auto"
    return SettingsNow(
        _known({**asked, **edits}, schema), _known(used, schema), _known(edits, schema),
        frozenset(name for name in CHOSEN_BY_AUTO if automatic and name in reported),
    )  # fmt: skip


def _used(attempt: Attempt, args: Mapping[str, object], reported: Mapping[str, object]) -> dict[str, object]:
    """What an attempt uses, without the spec, which may have been edited since. args.yaml is written anew
    before the worker reports; until then it may be that of the attempt before.
    """
    if reported:
        return {**attempt.train, **attempt.asked, **args, **attempt.ours, **reported}
    return {**attempt.train, **args, **attempt.ours, **attempt.asked}


def _known(values: Mapping[str, object], schema: Schema) -> dict[str, object]:
    return {name: value for name, value in values.items() if name in schema.fields}


class Draft:
    """Changed settings over the ones in effect and the ones that are saved for the next start."""

    def __init__(self, run: Path, now: SettingsNow) -> None:
        self.now, self.saved = now, dict(now.saved)
        # In the user's own folder: a run may belong to somebody else.
        self._path = user_state_dir() / "drafts" / f"{hashlib.sha1(str(run).encode()).hexdigest()[:16]}.json"
        self._run = run
        kept = (read_json(self._path) or {}).get("changes")
        self.changes: dict[str, object] = dict(kept) if isinstance(kept, dict) else {}
        self._leave_out_what_is_so()
        self.why: dict[str, str] = {}
        self._before: list[tuple[dict[str, object], dict[str, str], float]] = []

    def value(self, name: str) -> object:
        """Return the drafted value, else the one without the draft."""
        return self.changes[name] if name in self.changes else self.before(name)

    def before(self, name: str) -> object:
        """Return the value without the draft: the one saved for the next start, else the one in effect."""
        return self.saved[name] if name in self.saved else self.in_effect(name)

    def in_effect(self, name: str) -> object:
        """Return what the newest attempt uses."""
        return self.now.in_effect.get(name)

    def waits(self, name: str) -> bool:
        """Tell whether another value than the one in effect is saved for the next start."""
        return name in self.saved and not same_value(self.saved[name], self.in_effect(name))

    def set(self, values: Mapping[str, object], why: Mapping[str, str] | None = None) -> None:
        """Change some settings; one set back to what it was leaves the draft."""
        self._before.append((dict(self.changes), dict(self.why), time.time()))
        self.changes.update(values)
        self.why.update(why or {})
        self._leave_out_what_is_so()
        self._keep()

    @property
    def changed(self) -> float:
        """When `undo` has something to take back since, s since the epoch; 0 where it has nothing."""
        return self._before[-1][2] if self._before else 0.0

    def undo(self) -> bool:
        """Take the last change back; False when there is none."""
        if not self._before:
            return False
        self.changes, self.why, _ = self._before.pop()
        self._keep()
        return True

    def was_taken(self, values: Mapping[str, object], waits: bool) -> None:
        """Take note that the supervisor has these values now; what was drafted since stays drafted.

        `waits`: they are saved for the next start, else the training has begun with them.
        """
        self.saved.update(values if waits else {})
        self._before = []
        for name in [name for name, value in values.items() if same_value(self.changes.get(name), value)]:
            self.changes.pop(name, None)
        self._keep()

    def whole(self) -> dict[str, object]:
        """Return all settings as the next start would be asked for them."""
        return {**self.now.next_start, **self.saved, **self.changes}

    def as_used(self) -> dict[str, object]:
        """Return all settings as shown: where the worker reported a value, that one and not the one asked."""
        return {**self.now.next_start, **self.now.in_effect, **self.saved, **self.changes}

    def _leave_out_what_is_so(self) -> None:
        changed = self.changes.items()
        self.changes = {name: value for name, value in changed if not same_value(value, self.before(name))}

    def _keep(self) -> None:
        with contextlib.suppress(OSError):
            if self.changes:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._path, {"run": str(self._run), "changes": self.changes}, mode=0o600)
            else:
                self._path.unlink(missing_ok=True)


def entries(schema: Schema, draft: Draft, wanted: str = "", changed_only: bool = False) -> list[Entry]:
    """Return the rows: groups with their settings, by search, or only what was changed, saved or not."""
    shown = [
        setting
        for setting in schema.fields.values()
        if setting.for_training
        and setting.name not in HIDDEN
        and (not changed_only or setting.name in draft.changes or draft.waits(setting.name))
        and wanted.lower() in f"{setting.name} {setting.help}".lower()
    ]
    groups: dict[str, list[Entry]] = {}
    for setting in shown:
        groups.setdefault(setting.group, [setting.group]).append(setting)
    return [entry for group in groups.values() for entry in group]


def key_of(entry: Entry) -> str:
    """Return what a row is known by."""
    return f"# {entry}" if isinstance(entry, str) else entry.name


def next_value(field: Field, value: object) -> object:
    """Return the next choice of a setting with few: the other of yes and no, the next word; else None."""
    if field.choices:
        choices = list(field.choices)
        return choices[(choices.index(value) + 1) % len(choices)] if value in choices else choices[0]
    return (not value) if isinstance(value, bool) and "bool" in field.types else None


def row(entry: Entry, draft: Draft, findings: Mapping[str, str], glyphs: Glyphs, width: int) -> Line:
    """Return one row of the list."""
    if isinstance(entry, str):
        return [(f"{clean(entry, 40)} ", "title"), (glyphs.rule * max(0, width - len(entry) - 1), "rule")]
    name = entry.name
    changed = name in draft.changes
    value = clean(show_value(draft.value(name)), 80)
    mark, ink = (glyphs.mark if changed else " ", "accent")
    if findings.get(name) == "warning":
        mark, ink = glyphs.warn, "warn"
    line: Line = [
        (f"{mark} ", ink),
        (column(name, 18), "strong" if changed else "text"),
        (f" {value}", "accent" if changed else "muted"),
    ]
    if changed:
        line.append((f"  was {clean(show_value(draft.before(name)), 60)}", "faint"))
    elif draft.waits(name):
        line.append((f"  from the next start on, now {clean(show_value(draft.in_effect(name)), 60)}", "info"))
    return fit(line, width)


def about(entry: Entry | None, draft: Draft, findings: Iterable[LintFinding], width: int) -> list[Line]:
    """Return what is known about the setting under the cursor."""
    if entry is None or isinstance(entry, str):
        return [[(entry, "title")]] if entry else []
    name, used, chosen = entry.name, show_value(draft.in_effect(entry.name)), ""
    if name in draft.now.chosen:
        asked = show_value(draft.now.next_start.get(name))
        ignored = "" if name == "optimizer" else f"; {name}={asked} is ignored"
        chosen = f"  (optimizer=auto chose it{ignored})"
    facts = {"accepts": entry.expects(), "default": show_value(entry.default), "in effect": used + chosen}
    if draft.waits(name):
        facts["saved"] = f"{show_value(draft.saved[name])}, from the next start on"
    if name in draft.changes:
        facts["draft"] = show_value(draft.changes[name])
    remarks = [("nantui's own: a plain `yolo train` knows nothing of it", "info")] if entry.ours else []
    remarks += [(draft.why[name], "info")] if draft.why.get(name) else []
    remarks += [
        (one.text, "warn" if one.severity == "warning" else "info") for one in findings if one.name == name
    ]
    lines: list[Line] = [[(name, "title"), (f"   {entry.type}" if entry.types else "", "muted")], []]
    lines += [*wrap(clean(entry.help, 600) or "no description", width), []]
    for fact, text in facts.items():
        lines += hanging([(column(fact, 11), "muted")], clean(text, 300), width)
    return lines + [line for text, ink in remarks for line in ([], *wrap(clean(text, 500), width, ink))]
