"""docs/commands.md and docs/settings.md, made from the code itself, so that they cannot tell anything else.

What `--help` prints depends on the width of the terminal and the version of Python; the pages are made
from the same parsers instead, and so is what the tests look for.

python -m devtools.reference_pages docs
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from nantui.cli import COCKPIT, COMMANDS, SHARED, parser_of
from nantui.run.atomic_files import write_atomic
from nantui.run.documents import table
from nantui.settings.schema import Field, own_settings
from nantui.settings.values import show_value
from nantui.supervisor.config import Alerts, Patience

COMMON = """
Whatever starts, stops or recovers a training has a command as well as a key; both call the same functions.
Arguments of training are `key=value`, as in the `yolo` command. `RUN` is a run directory, `DIR` a directory
of runs. Results go to stdout, with `--json` as one JSON document and nothing else; words for people go to
stderr. JSON has no literal for a number that is not finite: it is written as "nan", "inf" or "-inf". Each
document has a [JSON Schema](schemas). `eval "$(nantui completion bash)"` completes words. What changes a run
asks first; where there is no terminal to ask on, it wants `--yes`. What makes a run or takes part in one
(`train`, `exec`, `sbatch`, `queue add`, `join`) does not ask.

| exit status | means |
| --- | --- |
"""

WAIT = "[wait](unattended.md#waiting-for-the-end)"
STATUSES = {
    "0": "done, or clean",
    "1": "the answer is no: a checkpoint is not clean, labels have errors, nothing can be restored, "
    "you said no",
    "2": "wrong usage",
    "3": "it failed, and says what was left as it was",
    "70, 75, 77, 124": f"of a {WAIT}: stopped, told to end, diverged, too late",
    "130": "Ctrl-C: the command is broken off; a training goes on",
}

OURS = """
Ultralytics' own arguments are those of the installed release: `c` in the cockpit lists them with type, range
and meaning, and `nantui train key=value` takes them. The settings here are nantui's. They are given in the
same way (`nantui train … grad_clip=5`, `nantui resume RUN --set guard=observe`, `c`), are kept apart from
Ultralytics' in `spec.yaml`, and never reach it.
"""

THRESHOLDS = """
[The guard](guard.md) says what the thresholds decide. `grad_clip` does nothing in a trainer that brings an
`optimizer_step` of its own.
"""

OWN_FILES = {
    "supervise.yaml": "`patience:` and `notify:` as below",
    "notify.json": "the URLs of `nantui notify`, for you alone",
    "cockpit.json": "what the cockpit remembers: the theme, and whether signs are plain ASCII",
    "ladder.yaml": "what is tried when trouble comes back; the shipped one is `configs/ladder.yaml`",
    "presets/NAME.yaml": "remedies of your own, also in `.nantui/presets/` of the directory that you start "
    "in or the nearest above; for a run that is there, of its own directory or the nearest above. `n` in the "
    "settings screen writes one",
    "NAME.yaml": "a plan, for `--plan NAME`: phases of a training; shipped is `configs/progressive.yaml`",
}

BOUNDS = """
A preset's entry has `why` and one of three. `at_most` and `at_least` are bounds on what is in effect: a run
that is on the safe side already keeps its value. `exactly` sets the value, as do the entries of a preset that
`n` writes; but an `amp` that is bf16 or fp32 already stays. `half` stands for half of what the run has.
"""


def commands() -> Iterator[str]:
    """Yield docs/commands.md."""
    yield from (
        "# Commands",
        "",
        "Made by `python -m devtools.reference_pages docs` from what `--help` says.",
    )
    yield COMMON.rstrip()
    yield from (f"| {status} | {text} |" for status, text in STATUSES.items())
    yield from ("", "| command | does |", "| --- | --- |")
    yield "| [`nantui [DIR]`](#nantui) | open the cockpit on a run, or on all runs below DIR |"
    for name, text in COMMANDS.items():
        yield f"| [`nantui {name}`](#nantui-{name}) | {text} |"
    for name in (COCKPIT, *COMMANDS):
        yield from _command(name)
    yield from ("", "## Options of every command", "", *_table(group_of(parser_of(COCKPIT), SHARED)))


def _command(name: str) -> Iterator[str]:
    parser = parser_of(name)
    own = [action for action in arguments_of(parser) if action not in group_of(parser, SHARED)]
    yield from ("", f"## {parser.prog}", "", inspect.cleandoc(parser.description or ""))
    yield from ("", "```", " ".join([parser.prog, *map(_in_usage, own)]), "```")
    if own:
        yield from ("", *_table(own))
    if parser.epilog:
        yield from ("", "```", *(line.strip() for line in parser.epilog.splitlines()[1:]), "```")


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what a command takes, options first as they were added, without what its help does not show and
    `--help`.
    """
    shown = (action for action in parser._actions if action.help != argparse.SUPPRESS)
    actions = [action for action in shown if not isinstance(action, argparse._HelpAction)]
    return sorted(actions, key=lambda action: not action.option_strings)


def group_of(parser: argparse.ArgumentParser, title: str) -> list[argparse.Action]:
    """Return the arguments of one titled group."""
    return [
        action for group in parser._action_groups if group.title == title for action in group._group_actions
    ]


def words_of(action: argparse.Action) -> str:
    """Return how an argument is written, e.g. `--preset NAME…`."""
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else ""
    value = str(action.metavar or choices or (action.dest.upper() if action.option_strings else action.dest))
    more = " …" if action.nargs in ("+", "*") else ""
    if not action.option_strings:
        return value + more
    return ", ".join(action.option_strings) + (f" {value}{more}" if action.nargs != 0 else "")


def help_of(action: argparse.Action) -> str:
    """Return what an argument is for, as `--help` prints it, with its default in it."""
    return argparse.HelpFormatter("")._expand_help(action) if action.help else ""


def _in_usage(action: argparse.Action) -> str:
    optional = not action.required if action.option_strings else action.nargs in ("?", "*")
    return f"[{words_of(action)}]" if optional else words_of(action)


def _table(actions: list[argparse.Action]) -> Iterator[str]:
    yield from ("| argument | meaning |", "| --- | --- |")
    for action in actions:
        yield f"| `{words_of(action)}` | {help_of(action)} |"


def settings() -> Iterator[str]:
    """Yield docs/settings.md."""
    yield from (
        "# Settings",
        "",
        "Made by `python -m devtools.reference_pages docs` from the code.",
        OURS.rstrip(),
    )
    yield from ("", "## Of a run", "", "| name | default | range | meaning |", "| --- | --- | --- | --- |")
    for one in own_settings():
        yield f"| `{one.name}` | {show_value(one.default)} | {_range(one)} | {one.help} |"
    yield THRESHOLDS.rstrip()
    yield from (
        "",
        "## Files of your own",
        "",
        "Below `~/.config/nantui/` (`$XDG_CONFIG_HOME/nantui/`); none is needed.",
    )
    yield from ("", "| file | holds |", "| --- | --- |")
    yield from (f"| `{name}` | {holds} |" for name, holds in OWN_FILES.items())
    yield BOUNDS.rstrip()
    yield from ("", "## Patience of the supervisor", "", "Under `patience:` in `supervise.yaml`; seconds.")
    yield from ("", "| name | default | meaning |", "| --- | --- | --- |")
    yield from _times(Patience(), "patience")
    yield from (
        "",
        "## Notifications",
        "",
        "Under `notify:` in `supervise.yaml`, beside `command`, `on`, `quiet`",
    )
    yield from ("([run control](run-control.md#told-when-nobody-looks)); seconds.",)
    yield from ("", "| name | default | meaning |", "| --- | --- | --- |")
    yield from _times(Alerts(), "notify")


def _times(defaults: Patience | Alerts, section: str) -> Iterator[str]:
    for name, meaning in table("supervise")[section].items():
        yield f"| `{name}` | {show_value(getattr(defaults, name))} | {meaning} |"


def _range(one: Field) -> str:
    if one.choices:
        number = ", or a number" if one.range else ""
        return ", ".join(f"`{choice}`" for choice in one.choices) + number
    if isinstance(one.default, bool):
        return "`True`, `False`"
    assert one.range is not None, "a number has a range"
    lowest, highest = one.range
    return f"from {lowest}" if highest is None else f"{lowest} to {show_value(highest)}"


PAGES = {"commands.md": commands, "settings.md": settings}


def main() -> int:
    """Write the pages into the directory given."""
    for name, page in PAGES.items():
        write_atomic(Path(sys.argv[1]) / name, "\n".join(page()) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
