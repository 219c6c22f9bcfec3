"""What the keys of the config editor do, apart from how the editor looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from nantui.errors import UserError
from nantui.run.spool import Command
from nantui.ui.data import editor
from nantui.ui.data.sentences import VERBS
from nantui.ui.messages import Answer
from nantui.ui.watch import find_out

if TYPE_CHECKING:
    from nantui.ui.screens.config import ConfigScreen


class ConfigActions:
    """The actions of ConfigScreen."""

    @property
    def _screen(self) -> ConfigScreen:
        return cast("ConfigScreen", self)

    @property
    def asked(self) -> Command | None:
        """The newest command with settings that the supervisor has not answered yet."""
        unanswered = [one for one in self._screen.over.sent.commands if one.options.get("set")]
        return unanswered[-1] if unanswered else None

    def may_edit(self) -> bool:
        """Whether a draft may be changed; says why not."""
        if self._screen.over.cockpit.read_only:
            self._screen.say("read-only: open it without --read-only to edit", "warn")
        return not self._screen.over.cockpit.read_only

    def action_search(self) -> None:
        """Narrow the list down while typing."""
        self._screen.open_input("/", "search settings by name or description", self._screen.wanted)

    def action_next_value(self) -> None:
        """Take the next choice of the setting under the cursor."""
        screen = self._screen
        entry, draft = screen.entry, screen.draft
        if entry is None or entry.field is None or draft is None or not self.may_edit():
            return
        value = editor.next_value(entry.field, draft.value(entry.field.name))
        if value is None:
            screen.say(f"{entry.field.name}: press Enter and type; it accepts {entry.field.expects()}")
            return
        draft.set({entry.field.name: value})
        screen.refresh_rows()

    def action_changed_only(self) -> None:
        """Show only what was changed, or everything."""
        self._screen.only_changed = not self._screen.only_changed
        self._screen.refresh_rows()

    def action_undo(self) -> None:
        """Take the last change back."""
        screen = self._screen
        if screen.draft is not None and screen.draft.undo():
            screen.refresh_rows()
            screen.say("the last change was taken back")
        else:
            screen.say("there is no change to undo", "warn")

    def action_reset(self) -> None:
        """Set the value under the cursor back to what is in effect, or saved."""
        screen = self._screen
        entry, draft = screen.entry, screen.draft
        if (
            entry is not None
            and entry.field is not None
            and draft is not None
            and entry.field.name in draft.changes
        ):
            draft.set({entry.field.name: draft.before(entry.field.name)})
            screen.refresh_rows()

    def action_presets(self) -> None:
        """Apply presets as a visible draft."""
        from nantui.ui.screens.presets import PresetsDialog

        screen = self._screen
        if self.may_edit():
            screen.app.push_screen(PresetsDialog(screen.over, ()), self._apply_presets)

    def _apply_presets(self, names: object) -> None:
        screen = self._screen
        if not isinstance(names, tuple) or not names or screen.draft is None:
            return
        settings, backend, run = screen.draft.as_used(), screen.over.cockpit.backend, screen.over.run_path
        schema = screen.schema

        def rows() -> Any:
            from nantui.settings.presets import apply_all

            known = backend.presets(run)
            return apply_all([known[name] for name in names], settings, schema.fields)

        find_out("presets-applied", rows, screen.post_message)

    def take_presets(self, message: Answer) -> None:
        """Put the rows of presets into the draft."""
        screen = self._screen
        if message.problem or screen.draft is None:
            screen.say(message.problem or "the settings are still being read", "bad")
            return
        rows = [row for row in message.value if not row.kept]
        kept = len(message.value) - len(rows)
        screen.draft.set({row.name: row.then for row in rows}, {row.name: row.why for row in rows})
        screen.refresh_rows()
        screen.say(f"{len(rows)} settings drafted, {kept} kept because yours are safer; C shows only these")

    def action_save(self) -> None:
        """Save for the next start or resume."""
        self._submit("set", "asked the supervisor to save it")

    def action_start(self) -> None:
        """Save, and start or resume at once."""
        screen = self._screen
        over = screen.over
        if over.snapshot is None or over.snapshot.checkpoints == ():
            self._submit("start", "asked the supervisor to start with it")
        else:
            self._submit("resume", "asked the supervisor to resume with it")

    def _submit(self, kind: str, said: str) -> None:
        screen = self._screen
        from nantui.ui.actions import why_not

        reason = "read-only: open it without --read-only to save" if screen.over.cockpit.read_only else None
        if kind != "set":
            reason = reason or why_not("start", screen.over.snapshot, screen.over.cockpit.read_only)
        if reason is None and kind == "set" and (screen.draft is None or not screen.draft.changes):
            reason = "nothing is changed"
        if reason is None and self.asked is not None and self.asked.kind == kind:
            reason = f"asked already to {VERBS[kind]}; waiting for the supervisor"
        if reason is not None or screen.draft is None:
            screen.say(reason or "the settings are still being read", "warn")
            return
        changes = dict(screen.draft.changes)
        screen.over.submit(kind, **({"set": changes} if changes else {}))
        screen.refresh_rows()
        screen.say(f"{said}; the draft is kept until that is done" if changes else said)

    def action_save_preset(self) -> None:
        """Ask for the name of a preset."""
        screen = self._screen
        if screen.draft is None or not screen.draft.changes:
            screen.say("nothing is changed: a preset needs at least one setting", "warn")
            return
        screen.open_input("#", "name of the preset, e.g. gentle", "")

    def write_preset(self, name: str) -> None:
        """Save the draft as a preset of the user's own."""
        from nantui.ui.data.own_presets import save_preset

        screen = self._screen
        try:
            path = save_preset(name, screen.draft.changes if screen.draft is not None else {})
            screen.say(f"saved as {path}", "good")
        except UserError as error:
            screen.say(str(error), "bad")

    def action_copy(self) -> None:
        """Copy the draft, or everything when nothing is changed, as a Python dict."""
        from nantui.ui.data.own_presets import as_dict

        screen = self._screen
        if screen.draft is None:
            return
        values = screen.draft.changes or screen.draft.whole()
        screen.app.copy_to_clipboard(as_dict(values))
        what = f"{len(values)} settings" if screen.draft.changes else "all settings"
        screen.say(f"{what} copied as Python, through the terminal (OSC 52)")
