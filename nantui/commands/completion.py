"""Completion for a shell: commands, options, runs, settings with their values, and presets.

Print what the shell is to read: `eval "$(nantui completion bash)"`, in zsh the same, in fish
`nantui completion fish | source`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nantui.errors import UserError

if TYPE_CHECKING:
    from nantui.settings.schema import Schema

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="bash|zsh|fish", help="the shell")


def run(arguments: argparse.Namespace) -> int:
    """Print the shell's code."""
    import argcomplete

    print(argcomplete.shellcode(["nantui"], shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser, commands: Collection[str]) -> None:
    """Answer a shell that asks by argcomplete's variables, and exit; `commands` may stand in place of DIR."""
    import argcomplete

    for action in parser._actions:
        action.completer = lambda prefix, action, **_: candidates(action, prefix)  # type: ignore[attr-defined]
    if commands:
        parser._positionals._group_actions[0].choices = commands
    else:
        os.environ["_ARGCOMPLETE"] = "2"  # the command's own word is no argument
    argcomplete.autocomplete(parser, always_complete_options=False)


def candidates(action: argparse.Action, prefix: str) -> list[str]:
    """Return what an argument may be: by what its help calls it."""
    from argcomplete.completers import FilesCompleter

    from nantui.run.layout import find_runs
    from nantui.settings.presets import load_presets
    from nantui.settings.schema import Schema

    kind = str(action.metavar or "").upper()
    try:
        if action.choices is not None and kind != "DIR":
            return list(action.choices)
        if kind == "KEY=VALUE" and action.nargs in ("+", "*"):
            return list(settings(Schema.load(), prefix))
        if action.dest in ("preset", "names"):
            return list(load_presets(Schema.load()))
    except (UserError, OSError):
        return []
    runs = () if prefix.startswith(("/", "~", ".")) else map(str, find_runs(Path(".")))
    return [*(action.choices or ()), *runs, *FilesCompleter()(prefix)]


def settings(schema: Schema, prefix: str) -> Iterator[str]:
    """Yield `lr0=` and so on, behind the sign the values that there are to choose from."""
    name, given, _ = prefix.partition("=")
    if given:
        yield from (f"{name}={choice}" for choice in schema.field(name).choices or ())
    else:
        yield from (f"{field.name}=" for field in schema.fields.values() if field.for_training)
