"""The run's settings, in groups, checked as they are typed, saved for the next start or resume."""

from __future__ import annotations

from functools import partial

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.widgets import Input

from nantui.errors import UserError
from nantui.recovery.run_facts import known_about
from nantui.run.commands import Command
from nantui.run.events import CommandReceived, of_kind
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.settings.lint import Known, LintFinding, lint
from nantui.settings.presets import apply_all
from nantui.settings.schema import Field, Schema
from nantui.settings.values import Change, show_value
from nantui.ui.context import RunView
from nantui.ui.dialogs.choose import PresetsDialog
from nantui.ui.format import WORDS, clean
from nantui.ui.model import config_editor
from nantui.ui.model.command_progress import CommandOutcome, newest_change
from nantui.ui.model.config_editor import Draft, SettingsNow, read_settings
from nantui.ui.screens.base import RunPage
from nantui.ui.styled_text import Line
from nantui.ui.widgets.keybar import BACK, HELP
from nantui.ui.widgets.list_view import Document, Listing
from nantui.words import count

SAVED = "saved, from the next start on"
UNREAD = "the settings are still being read"
SAID = {"data": "looked for at the next start", "model": "taken only where it begins again (R, then b)"}
"""What is not known to be fine before it is used."""


class ConfigScreen(RunPage):
    """A list of settings beside what is known about the one under the cursor."""

    BINDINGS = [
        Binding("w,ctrl+s", "save", "save", tooltip="save for the next start or resume"),
        Binding("p", "presets", "presets", tooltip="apply presets to the draft"),
        Binding("slash", "search", "search", tooltip="search by name or description"),
        Binding("C", "changed_only", "changed only", tooltip="only what was changed, or everything"),
        Binding("u", "undo", "undo", tooltip="undo the last change of the draft, then what was saved last"),
        Binding("s", "start", "save and start/resume", tooltip="save, and start or resume with it"),
        Binding("y", "copy", "copy", tooltip="copy the draft as Python, also over SSH"),
        Binding("space", "next_value", "the next choice, or yes and no", show=False),
        Binding("backspace,delete", "reset", "back to what is in effect, also what was saved", show=False),
        Binding("n", "save_preset", "save the draft as a preset of your own", show=False),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    KEYS = (HELP, BACK, ("Enter", "edit", True))
    FIELD = ""

    def __init__(self, over: RunView) -> None:
        super().__init__(over)
        self.listing = Listing(id="settings", empty="reading the installed Ultralytics' settings..")
        self.schema: Schema | None = None
        self.known: Known | None = None
        self.draft = Draft(over.run_path, SettingsNow())
        self.findings: list[LintFinding] = []
        self.wanted, self.only_changed = "", False
        self.entries: list[config_editor.Entry] = []
        self.editing = ""
        self._read_after: object = None

    def body(self) -> ComposeResult:
        with Container(id="config"):
            yield self.listing
            yield Document(id="about", write=self._about)

    def on_mount(self) -> None:
        self.over.follow(self, self._read_when_news)

    def _read_when_news(self) -> None:
        """Read the settings, and again when an attempt has begun or has told what is in effect."""
        news = newest_change(self.over.snapshot.journal) or "no attempt"
        if self._read_after != news:
            self._read_after = news
            self._read_again()

    def _read_again(self) -> None:
        backend, snapshot = self.cockpit.backend, self.over.snapshot
        record = RunRecord(RunLayout(self.over.run_path))

        def read() -> tuple[Schema, SettingsNow, Known]:
            schema = backend.schema()
            now = read_settings(record, schema, snapshot)
            done = max((snapshot.status.epoch or 1) - 1, 0)
            return schema, now, known_about(record, dict(now.next_start), done)

        self.find_out(read, self._take)

    def _take(self, found: tuple[Schema, SettingsNow, Known] | None, problem: str) -> None:
        if found is None:
            self.listing.empty = problem
            self.listing.show([], lambda row, width: [])
            return
        first = self.schema is None
        self.schema, now, self.known = found
        self.draft = Draft(self.over.run_path, now)
        if first and self.draft.changes:
            self.say(f"a draft of {count(len(self.draft.changes), 'change')} was kept from last time")
        self.refresh_rows()
        if first:
            self.listing.go(1)

    def refresh_rows(self) -> None:
        if self.schema is None:
            return
        self.findings = lint(self.draft.whole(), self.known)
        grave = {finding.name: finding.severity for finding in reversed(self.findings)}
        self.entries = config_editor.entries(self.schema, self.draft, self.wanted, self.only_changed)
        draft, glyphs, shown = self.draft, self.cockpit.glyphs, self.entries
        self.listing.empty = self._nothing()
        self.listing.show(
            list(map(config_editor.key_of, shown)),
            lambda row, width: config_editor.row(shown[row], draft, grave, glyphs, width),
        )
        self.query_one(Document).remake()

    def _nothing(self) -> str:
        if self.wanted and self.only_changed:
            return f"no changed setting matches {self.wanted!r}; C shows the unchanged ones, too"
        return "no setting matches" if self.wanted else "nothing is changed" if self.only_changed else ""

    @property
    def entry(self) -> config_editor.Entry | None:
        row = self.listing.cursor
        return self.entries[row] if 0 <= row < len(self.entries) else None

    @property
    def setting(self) -> Field | None:
        """The setting under the cursor, None on a heading."""
        return None if isinstance(self.entry, str) else self.entry

    def heading(self, width: int) -> list[Line]:
        version = f"Ultralytics {self.schema.version}" if self.schema is not None else ""
        narrowed = f"   search {self.wanted!r}" if self.wanted else ""
        narrowed += "   changed only" if self.only_changed else ""
        line: Line = [("settings ", "title"), (self.over.run_path.name, "strong"), self._standing()]
        return [[*line, (narrowed, "info"), (f"   {version}", "faint")]]

    def _standing(self) -> tuple[str, str]:
        if changed := len(self.draft.changes):
            return f"   {changed} changed, {'asked the supervisor..' if self.asked else 'not saved'}", "warn"
        if waits := sum(map(self.draft.waits, self.draft.saved)):
            return f"   {waits} saved, from the next start on", "info"
        return "   as in effect", "muted"

    def hear(self, outcome: CommandOutcome) -> None:
        """Forget the draft once the supervisor has it; a refusal is shown and leaves it as it was."""
        options = outcome.command.options
        values, waits = options.get("set"), outcome.command.kind == "set" and not options.get("back")
        if outcome.ok and values:
            self.draft.was_taken(values, waits)
        if outcome.ok and (values or options.get("back")):
            self.say(SAVED if waits else clean(outcome.text, 300), "good")
            if not waits:
                self._read_again()
        super().hear(outcome)
        self.refresh_rows()

    def _about(self, width: int) -> list[Line]:
        return config_editor.about(self.entry, self.draft, self.findings, width)

    def on_listing_moved(self, message: Listing.Moved) -> None:
        self.query_one(Document).remake()

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        if self.setting is not None and self.may_edit():
            name = self.setting.name
            self.open_input(name, f"{name} = ", show_value(self.draft.value(name)))

    def open_input(self, editing: str, placeholder: str, value: str) -> None:
        """Show the input line for `editing`: a setting, `/` for the search, `#` for a preset's name."""
        field = self.query_one(Input)
        self.editing = editing
        field.placeholder, field.value = placeholder, value
        self.action_open_field()
        field.action_end()

    def close_field(self) -> bool:
        """Put the input line away, else the search; the draft is kept."""
        self.editing = ""
        closed = super().close_field()
        if not closed and self.wanted:
            self.wanted, closed = "", True
            self.refresh_rows()
        return closed

    def on_input_changed(self, message: Input.Changed) -> None:
        if self.editing == "/":
            self.wanted = message.value
            self.refresh_rows()
            self.listing.go(1)
        elif self.editing and self.editing != "#" and message.input.display:
            self._check(message.value)

    def _check(self, text: str) -> object:
        """Say at once whether the value would do; returns it checked, or the error."""
        assert self.schema is not None, "edited once there are settings"
        try:
            value = self.schema.changes([f"{self.editing}={text}"])[self.editing]
        except UserError as error:
            self.say(str(error), "bad")
            return error
        found = lint({**self.draft.whole(), self.editing: value}, self.known)
        remark = next((one.text for one in found if one.name == self.editing), "")
        self.say(remark or f"{self.editing}: {SAID.get(self.editing, 'fine')}", "warn" if remark else "good")
        return value

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if self.editing == "#":
            self.write_preset(message.value)
        elif self.editing != "/":
            value = self._check(message.value)
            if isinstance(value, UserError):
                return
            self.draft.set({self.editing: value})
        self.close_field()
        self.refresh_rows()

    @property
    def asked(self) -> Command | None:
        unanswered = [one for one in self.over.sent.values() if one.options.get("set")]
        return unanswered[-1] if unanswered else None

    def may_edit(self) -> bool:
        """Whether a draft may be changed; says why not."""
        return self.may(UNREAD if self.schema is None else "", to="edit")

    def action_search(self) -> None:
        self.open_input("/", "search settings by name or description", self.wanted)

    def action_next_value(self) -> None:
        field = self.setting
        if field is None or not self.may_edit():
            return
        value = config_editor.next_value(field, self.draft.value(field.name))
        if value is None:
            self.say(f"{field.name}: press Enter and type; it accepts {field.expects()}")
            return
        self.draft.set({field.name: value})
        self.refresh_rows()

    def action_changed_only(self) -> None:
        self.only_changed = not self.only_changed
        self.refresh_rows()

    def action_undo(self) -> None:
        if self.cockpit.undo_own(self.draft.changed):
            return
        if self.draft.undo():
            self.refresh_rows()
            self.say("the last change was taken back")
        else:
            self._take_back(self._saved_last())

    def _saved_last(self) -> list[str]:
        asked = of_kind(self.over.snapshot.journal, CommandReceived)
        saved = (
            [name for name in one.command.options.get("set") or {} if name in self.draft.saved]
            for one in reversed(asked)
        )
        return next(filter(None, saved), [])

    def _take_back(self, names: list[str]) -> None:
        """Ask the supervisor to forget settings that were saved for the next start."""
        if not names:
            self.say("there is no change to undo, and nothing is saved for the next start", "warn")
        elif self.may_edit():
            self.over.submit("set", back=names)
            self.say(f"asked the supervisor to take back what was saved: {', '.join(names)}")

    def action_reset(self) -> None:
        """Set the value under the cursor back to what is in effect, or saved."""
        if self.setting is None:
            return
        name = self.setting.name
        if name in self.draft.changes:
            self.draft.set({name: self.draft.before(name)})
            self.refresh_rows()
        elif self.draft.waits(name):
            self._take_back([name])
        else:
            self.say(f"{name} is as in effect")

    def action_presets(self) -> None:
        if self.may_edit():
            self.app.push_screen(PresetsDialog(self.over.run_path, ()), self._apply_presets)

    def _apply_presets(self, names: object) -> None:
        if not isinstance(names, tuple) or not names or self.schema is None:
            return
        settings, backend, run = self.draft.as_used(), self.cockpit.backend, self.over.run_path
        fields = self.schema.fields

        def rows() -> list[Change]:
            known = backend.presets(run)
            return apply_all([known[name] for name in names], settings, fields)

        self.find_out(rows, self._draft_presets)

    def _draft_presets(self, found: list[Change] | None, problem: str) -> None:
        if found is None:
            self.say(problem, "bad")
            return
        rows = [row for row in found if not row.kept]
        kept = len(found) - len(rows)
        self.draft.set({row.name: row.then for row in rows}, {row.name: row.why for row in rows})
        self.refresh_rows()
        self.say(
            f"{count(len(rows), 'setting')} drafted, {kept} kept because yours are safer; C shows only these"
        )

    def action_save(self) -> None:
        self._submit("set", "asked the supervisor to save it")

    def action_start(self) -> None:
        kind = "resume" if self.over.snapshot.checkpoints else "start"
        self._submit(kind, f"asked the supervisor to {kind} with it")

    def _submit(self, kind: str, said: str) -> None:
        if not self.may(self._why_not(kind), to="save"):
            return
        changes = dict(self.draft.changes)
        self.over.submit(kind, **({"set": changes} if changes else {}))
        self.refresh_rows()
        self.say(f"{said}; the draft is kept until that is done" if changes else said)

    def _why_not(self, kind: str) -> str | None:
        if kind != "set" and (reason := self.over.why_not("start")):
            return reason
        if kind == "set" and self.schema is not None and not self.draft.changes:
            return "nothing is changed"
        if self.asked is not None and self.asked.kind == kind:
            return f"asked already to {WORDS['commands'][kind]}; waiting for the supervisor"
        return UNREAD if self.schema is None else None

    def action_save_preset(self) -> None:
        if not self.draft.changes:
            self.say("nothing is changed: a preset needs at least one setting", "warn")
            return
        self.open_input("#", "name of the preset, e.g. gentle", "")

    def write_preset(self, name: str) -> None:
        try:
            path = config_editor.save_preset(name, self.draft.changes)
            self.cockpit.can_undo(partial(config_editor.put_aside, path))
            self.say(f"saved as {path}", "good")
        except UserError as error:
            self.say(str(error), "bad")

    def action_copy(self) -> None:
        values = self.draft.changes or self.draft.whole()
        self.app.copy_to_clipboard(config_editor.as_dict(values))
        what = count(len(values), "setting") if self.draft.changes else "all settings"
        self.say(f"{what} copied as Python, through the terminal (OSC 52)")
