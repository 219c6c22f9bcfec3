"""List the remedies, show one, or show what it would change in a run and why."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from nantui.commands import common
from nantui.errors import USAGE, UserError
from nantui.recovery.plan import choose_restore, settings_table
from nantui.recovery.plan_inputs import gather_inputs
from nantui.recovery.resume_settings import settings_in_effect
from nantui.recovery.run_facts import known_about
from nantui.run.record import read_run
from nantui.settings.lint import lint
from nantui.settings.presets import Preset, apply_all, find_presets, load_presets
from nantui.settings.schema import Schema
from nantui.settings.values import as_python, changed, show_value
from nantui.words import aligned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="a preset, or several applied in this order")
    parser.add_argument("--against", type=Path, metavar="RUN", help="show what would change in this run")
    common.add_flags(parser, dict="with --against: the changed settings as Python")
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the list, a preset, or the difference to a run."""
    schema = Schema.load(arguments.python)
    if arguments.against is not None:
        return _show_difference(arguments, schema)
    presets = load_presets(schema)
    chosen = find_presets(arguments.names, schema) if arguments.names else list(presets.values())
    rows = [("preset", "from", "what it does"), *((one.name, one.source, one.title) for one in chosen)]
    document = {"presets": [_document(preset) for preset in chosen]}
    common.answer(arguments, document, _describe(chosen) if arguments.names else aligned(rows))
    return 0


def _show_difference(arguments: argparse.Namespace, schema: Schema) -> int:
    if not arguments.names:
        raise UserError("which preset? e.g. nantui presets nan-safe --against RUN", USAGE)
    facts = gather_inputs(read_run(arguments.against), {}, arguments.python)
    usable = any(one.usable for one in facts.candidates)
    done = any(one.finished for one in facts.candidates)  # nothing is gone back to, it is only looked at
    in_effect = settings_in_effect(facts, choose_restore(facts, None, restart=done or not usable))
    rows = apply_all(find_presets(arguments.names, schema, facts.record.run), in_effect, schema.fields)
    then = {**in_effect, **changed(rows)}
    findings = [one for one in lint(then, known_about(facts.record, in_effect)) if one.name in changed(rows)]
    lines = settings_table(rows) or ["nothing changes: every setting is so already"]
    lines += [f"{one.severity}: {one.name}: {one.text}" for one in findings]
    said = [asdict(one) for one in findings]
    document = {"changes": [asdict(row) for row in rows], "set": changed(rows), "findings": said}
    common.answer(arguments, document, as_python(rows).splitlines() if arguments.dict else lines)
    return 0


def _describe(presets: list[Preset]) -> Iterator[str]:
    for preset in presets:
        yield f"{preset.name}: {preset.title} ({preset.source}: {preset.path})"
        bounds = preset.bounds
        rows = [(one.name, one.kind.replace("_", " "), show_value(one.value), one.why) for one in bounds]
        yield from (f"  {row}" for row in aligned(rows))


def _document(preset: Preset) -> dict[str, object]:
    entries = {bound.name: {bound.kind: bound.value, "why": bound.why} for bound in preset.bounds}
    return {"name": preset.name, "title": preset.title, "source": preset.source, "settings": entries}
