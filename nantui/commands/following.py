"""What the commands that act on a run share: send one command, show its stages, turn its outcome into a
status.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from nantui.commands import common
from nantui.errors import FAILED, NO, USAGE, UserError
from nantui.recovery.agreement import would_run
from nantui.recovery.plan_warnings import lost_with_our_runner
from nantui.run.binding import MOVED, STARTS, bind_run, standing
from nantui.run.commands import Command
from nantui.run.discovery import require_run
from nantui.run.documents import JsonObject
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.status import ACTIVE
from nantui.settings.schema import Schema
from nantui.supervisor.client import carry_out
from nantui.supervisor.status import read_status

FILES = ("data", "model", "pretrained")
"""Settings that may name a file, which whoever types them sees from here."""


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run directory that the command acts on."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory, e.g. runs/detect/train")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the settings that a resume or a recovery may change."""
    common.add_list(parser, "--set", "KEY=VALUE", "change settings")
    common.add_list(parser, "--preset", "NAME", "apply remedies")


def add_allow(parser: argparse.ArgumentParser) -> None:
    """Add the names of code that loading a checkpoint may run."""
    parser.add_argument(
        "--allow", nargs="+", action="extend", default=[], metavar="NAME", help="code that loading may run"
    )


def add_our_runner(parser: argparse.ArgumentParser) -> None:
    """Add the word that a training which nantui did not start is to go on under nantui's own runner."""
    parser.add_argument(
        "--our-runner", action="store_true", help="go on without the script that began it, whatever is lost"
    )


def agree_to_lose(arguments: argparse.Namespace, layout: RunLayout) -> bool:
    """Name what going on with our runner loses, and ask; False for a no. Raises UserError where nobody can.

    An exec run goes on with its own script unless `--our-runner` says otherwise.
    """
    record = RunRecord(layout)
    if record.spec is not None and not arguments.our_runner:
        return True
    lost = lost_with_our_runner(record, Schema.load(arguments.python))
    if not lost:
        return True
    for line in ("nantui's own runner goes on without:", *(f"  {line}" for line in lost)):
        common.say(line)
    if arguments.our_runner or arguments.dry_run:
        return True
    if arguments.yes or not sys.stdin.isatty():
        raise UserError(f"{layout.run.name} was not started by nantui: add --our-runner to go on", USAGE)
    return common.confirm(arguments, "Go on without it?")


def settings_of(arguments: argparse.Namespace) -> JsonObject:
    """Return the options `set` and `presets` of a command. Raises UserError for a misspelt setting."""
    options: JsonObject = {}
    if arguments.set:
        asked = Schema.load(arguments.python).parse_assignments(arguments.set)
        here = {name: os.path.abspath(str(asked[name])) for name in FILES if name in asked}
        options["set"] = {**asked, **{name: path for name, path in here.items() if os.path.exists(path)}}
    if arguments.preset:
        options["presets"] = list(arguments.preset)
    return options


def add_wait_gpu(parser: argparse.ArgumentParser) -> None:
    """Add what every command has that starts a training: the supervisor waits, this terminal may go."""
    parser.add_argument("--wait-gpu", action="store_true", help="start once others have freed the GPU")


def given(arguments: argparse.Namespace, *names: str) -> dict[str, object]:
    """Return those of the options `names` that were given, as the command to the supervisor calls them."""
    return {name: value for name in names if (value := getattr(arguments, name))}


def python_of(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the option that names the interpreter that trains from now on, in full, as a supervisor has
    another working directory. A link stays one: by it an interpreter finds its virtual environment.
    """
    if not arguments.python:
        return {}
    return {"python": os.path.abspath(arguments.python) if "/" in arguments.python else arguments.python}


def act(
    arguments: argparse.Namespace,
    kind: str,
    options: JsonObject,
    question: str,
    check: Callable[[RunLayout], bool | None] = lambda layout: None,
) -> int:
    """Ask, send the command, show its stages, and return the exit status. Raises UserError for a bad run.

    `check` may refuse by raising, and ask a question of its own: False means no.
    """
    common.refuse_read_only(arguments)
    layout = require_run(arguments.run)
    if check(layout) is False:
        common.say("nothing was done")
        return NO
    strange = strangeness(layout, kind)
    question = f"{question} Start all that?" if strange else question
    if arguments.dry_run:
        common.say(f"would {kind} {question.removesuffix(' Do it?').rstrip('.?')}")
        return 0
    if not agreed(arguments, layout, question, strange):
        common.say("nothing was done")
        return NO
    command = Command(kind, options | python_of(arguments))
    outcome = carry_out(layout.run, command, on_stage=show_stage, take_over=arguments.take_over)
    common.say(f"{kind}: {outcome.text}")
    return 0 if outcome.ok else FAILED


def strangeness(layout: RunLayout, kind: str) -> bool:
    """Show what going on with a run that was not made here would run; False where nothing is strange."""
    if kind not in STARTS:
        return False
    lines = would_run(layout)
    for line in lines:
        common.say(f"  {line}")
    return bool(lines)


def agreed(arguments: argparse.Namespace, layout: RunLayout, question: str, strange: bool) -> bool:
    """Ask; for a run that was not made here only a person's answer or `--trust` counts, and binds it here."""
    if not strange:
        return common.confirm(arguments, question)
    moved = standing(layout.run) == MOVED  # by its owner: the usual answer will do
    if not (arguments.trust or moved) and (arguments.yes or not sys.stdin.isatty()):
        raise UserError(f"{layout.run} was not made here: --trust goes on with what is shown above", USAGE)
    if not (arguments.trust or common.confirm(arguments, question)):
        return False
    bind_run(layout.run)
    return True


def trains(run: Path) -> bool:
    """Tell whether something trains there, which has to be stopped first."""
    status = read_status(run)
    return status.state in ACTIVE or bool(status.pids)


def show_stage(stage: str, text: str) -> None:
    """Print one line of progress."""
    common.say(f"{stage}: {text}")
