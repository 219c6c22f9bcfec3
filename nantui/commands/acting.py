"""The commands that act on a run: stop, recover, rollback, undo, resume. Each is shown, agreed to, sent to
the run's supervisor and followed to its end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from nantui.commands import common
from nantui.commands.watching import foreground
from nantui.diagnosis.causes import named
from nantui.errors import FAILED, NO, USAGE, UserError
from nantui.machine.process_tree import members
from nantui.recovery.agreement import would_run
from nantui.recovery.plan import Plan, exactly, lost_with_our_runner, make_plan, plan_lines
from nantui.recovery.restore_points import why_again
from nantui.recovery.undo import what_it_was
from nantui.run.attempts import read_attempt
from nantui.run.binding import MOVED, STARTS, bind, standing
from nantui.run.commands import Command
from nantui.run.documents import JsonObject
from nantui.run.journal import UNDOABLE, newest_in_force
from nantui.run.layout import RunLayout, require_run
from nantui.run.plan import next_waits
from nantui.run.record import RunRecord
from nantui.run.spec import Spec, with_settings
from nantui.run.status import ACTIVE, FOREIGN
from nantui.settings.presets import checked
from nantui.settings.schema import Schema
from nantui.supervisor.client import ask_recovery, branch_off, carry_out
from nantui.supervisor.directories import end_strays, run_of, strays_of
from nantui.supervisor.foreign import describe, find_foreign
from nantui.supervisor.recovery import has_trained, to_continue
from nantui.supervisor.run_spec import directory_for, refuse_missing
from nantui.supervisor.status import read_status

FILES = ("data", "model", "pretrained")
"""Settings that may name a file, which whoever types them sees from here."""
Check = Callable[[argparse.Namespace, RunLayout], "bool | None"]
"""May refuse by raising, and ask a question of its own: False means no."""


def act(
    arguments: argparse.Namespace, kind: str, options: JsonObject, question: str,
    check: Check = lambda arguments, layout: None,
) -> int:  # fmt: skip
    """Ask, send the command, show its stages, and return the exit status. Raises UserError for a bad run."""
    layout = require_run(arguments.run)
    if (refused := _refused(arguments, layout, kind, question, check)) is not None:
        return refused
    command = Command(kind, options | _python_of(arguments))
    outcome = carry_out(
        layout.run, command, take_over=arguments.take_over,
        on_stage=lambda stage, text: common.say(f"{stage}: {text}"),
    )  # fmt: skip
    common.say(f"{kind}: {outcome.text}")
    return 0 if outcome.ok else FAILED


def _refused(
    arguments: argparse.Namespace, layout: RunLayout, kind: str, question: str, check: Check
) -> int | None:
    """Ask, or say what would be done; return the exit status where nothing is to be done, None for a yes."""
    common.refuse_read_only(arguments)
    strange = would_run(layout) if kind in STARTS else []
    for line in strange:  # what going on with a run that was not made here would run
        common.say(f"  {line}")
    if check(arguments, layout) is not False:
        if arguments.dry_run:
            common.say(f"would {kind} {question.removesuffix(' Do it?').rstrip('.?')}")
            return 0
        if strange:
            agreed = _agreed_to_strange(arguments, layout, f"{question} Start all that?")
        else:
            agreed = common.confirm(arguments, question)
        if agreed:
            return None
    common.say("nothing was done")
    return NO


def _agreed_to_strange(arguments: argparse.Namespace, layout: RunLayout, question: str) -> bool:
    """Ask; for a run that was not made here only a person's answer or `--trust` counts, and binds it here."""
    moved = standing(layout.run) == MOVED  # by its owner: the usual answer will do
    newest = None if moved else read_attempt(layout, layout.newest_attempt())
    if newest and members(newest.uuid) and (place := run_of({newest.uuid})) != layout.run:
        why = f"a copy of a run that trains in {place or 'another place'}, and would take its processes"
        raise UserError(f"{layout.run} is {why} for its own; end that first; nothing was done", FAILED)
    if not (arguments.trust or moved) and (arguments.yes or not sys.stdin.isatty()):
        raise UserError(f"{layout.run} was not made here: --trust goes on with what is shown above", USAGE)
    if not (arguments.trust or common.confirm(arguments, question)):
        return False
    bind(layout.run)
    return True


def _python_of(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the option that names the interpreter that trains from now on, in full, as a supervisor has
    another working directory. A link stays one: by it an interpreter finds its virtual environment.
    """
    if not arguments.python:
        return {}
    return {"python": os.path.abspath(arguments.python) if "/" in arguments.python else arguments.python}


def trains(run: Path) -> bool:
    """Tell whether something trains there, which has to be stopped first."""
    status = read_status(run)
    return status.state in ACTIVE or bool(status.pids)


def add_stop(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    common.add_flags(parser, now="end every process at once, nothing is saved")
    name = "the run's name: stop a training nantui did not start"
    parser.add_argument("--foreign", metavar="NAME", help=name)
    common.add_changer(parser)


def run_stop(arguments: argparse.Namespace) -> int:
    """Stop at the next batch boundary, checkpoint kept; returns when no process of the training is left."""
    kind = "kill" if arguments.now else "stop"
    if (ended := _stop_strays(arguments)) is not None:
        return ended
    layout = require_run(arguments.run)
    status = read_status(layout.run)
    if status.state == FOREIGN and status.pids:
        return _stop_foreign(arguments, layout, kind)
    how = {"kill": "kill every process, losing what was not saved"}
    how["stop"] = "stop at the next batch boundary, with a checkpoint where the disk has room for one"
    return act(arguments, kind, {}, f"{arguments.run}: {how[kind]}?")


def _stop_strays(arguments: argparse.Namespace) -> int | None:
    """Stop what trains on under this name after its directory was renamed or deleted; None for nothing.

    A run that was renamed is stopped where it lies now.
    """
    if not (marks := strays_of(arguments.run.resolve())):
        return None
    if now := run_of(marks):
        common.say(f"{arguments.run} trains on as {now}")
        arguments.run = now
        return None
    common.refuse_read_only(arguments)
    question = f"{arguments.run}: its directory is gone and it trains on: end its processes?"
    if not common.go_ahead(arguments, "end its processes", question):
        return 0 if arguments.dry_run else NO
    common.say(f"{'kill' if arguments.now else 'stop'}: {end_strays(marks)}")
    return 0


def _stop_foreign(arguments: argparse.Namespace, layout: RunLayout, kind: str) -> int:
    for training in find_foreign(layout.run):
        common.say(describe(training, with_gpu=True))
        common.say(f"  in {training.cwd}; {training.evidence} to write into this run")
        if training.restarted_by:
            common.say(f"  it seems to be started again by {training.restarted_by}: end that first")
    if not arguments.dry_run and not _named(arguments, layout.run.name):
        common.say("nothing was done")
        return NO
    arguments.yes = True
    return act(arguments, kind, {"foreign": True}, "end these processes and what they started?")


def _named(arguments: argparse.Namespace, name: str) -> bool:
    if arguments.foreign is not None:
        return bool(arguments.foreign == name)
    if not sys.stdin.isatty():
        raise UserError(f"not started by nantui: confirm with --foreign {name}", USAGE)
    common.say(f"Stop it? Type the run's name ({name}): ", end="")
    return sys.stdin.readline().strip() == name


def _add_settings(parser: argparse.ArgumentParser) -> None:
    common.add_list(parser, "--set", "KEY=VALUE", "change settings")
    common.add_list(parser, "--preset", "NAME", "apply remedies")
    common.add_list(parser, "--allow", "NAME", "code that loading may run")


def _settings_of(arguments: argparse.Namespace) -> JsonObject:
    options: JsonObject = {}
    if arguments.set:
        asked = Schema.load(arguments.python).changes(arguments.set)
        if "model" in asked and not getattr(arguments, "restart", False):
            raise UserError("model: weights come from a checkpoint; `recover --restart` takes another model")
        here = {name: os.path.abspath(str(asked[name])) for name in FILES if name in asked}
        options["set"] = {**asked, **{name: path for name, path in here.items() if os.path.exists(path)}}
        refuse_missing(options["set"])
    if arguments.preset:
        options["presets"] = list(arguments.preset)
    return options


def _agree_to_lose(arguments: argparse.Namespace, layout: RunLayout) -> bool:
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


def add_rollback(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    to = "the restore point, e.g. epoch130.pt or epoch134-step1240"
    parser.add_argument("--to", metavar="CHECKPOINT", help=to)
    common.add_flags(parser, restart="plan B: move everything aside and begin again")
    common.add_flags(parser, json="with --dry-run: the plan as one JSON document")
    _add_settings(parser)
    common.add_changer(parser, goes_on=True)


def run_rollback(arguments: argparse.Namespace) -> int:
    """Go back to a clean checkpoint: back up, restore, write changed settings into it, trim.
    Starts nothing.
    """
    plan = _plan_for(arguments, propose=False)
    if _only_shown(arguments, plan):
        return 0
    options = exactly(plan) | common.given(arguments, "allow")
    return act(arguments, "rollback", options, f"{plan.run}: {_in_words(plan)}?")


def _in_words(plan: Plan) -> str:
    """Return what the plan does, as a part of a question."""
    return plan.headline if plan.restore else f"move everything aside ({why_again(plan.candidates)})"


def _plan_for(arguments: argparse.Namespace, *, propose: bool) -> Plan:
    given = _settings_of(arguments)
    propose = propose and not given
    return make_plan(
        arguments.run, arguments.to, given.get("set"), given.get("presets"), propose=propose,
        restart=arguments.restart, python=arguments.python, allow=arguments.allow,
        diagnosed=named(Path(arguments.run)) if propose else (),
    )  # fmt: skip


def _only_shown(arguments: argparse.Namespace, plan: Plan) -> bool:
    """Show the plan; True when it was asked for as JSON, and nothing is to follow."""
    if arguments.json and arguments.dry_run:
        common.emit(plan.to_json())
        return True
    for line in plan_lines(plan):
        common.say(line)
    if arguments.dry_run and trains(plan.run):
        common.say("note: it trains now; what is done is planned again from the files once it has stopped")
    return False


def add_recover(parser: argparse.ArgumentParser) -> None:
    add_rollback(parser)
    common.add_flags(parser, "our_runner", auto="and let the ladder recover it from now on")
    in_memory = "of what trains: back to a step point, without a restart or other settings"
    common.add_flags(parser, in_memory=in_memory)
    parser.add_argument("--into", metavar="NAME", help="continue in a new run, leave this one untouched")
    common.add_flags(parser, "wait_gpu")


def run_recover(arguments: argparse.Namespace) -> int:
    """Stop, roll back to a clean checkpoint, continue: the one key R."""
    if arguments.in_memory:
        how = "go back in memory to the newest step point from before the trouble; it cannot be undone"
        return act(arguments, "rewind", {}, f"{require_run(arguments.run).run}: {how}. Do it?")
    plan = _plan_for(arguments, propose=True)
    if _only_shown(arguments, plan):
        return 0
    options = exactly(plan) | common.given(arguments, "allow", "into", "wait_gpu", "our_runner", "auto")
    stop = "stop the training, " if trains(plan.run) else ""
    if stop or not arguments.into:
        then = "go on from there" if plan.restore else "begin again"
        question = f"{plan.run}: {stop}{_in_words(plan)} and {then}?"
        return act(arguments, "recover", options, question, _agree_to_lose)
    # No supervisor for the old run, of which no byte changes.
    question = f"{plan.run}: continue in {plan.run.parent / arguments.into}, leaving it untouched?"
    refused = _refused(arguments, RunLayout(plan.run), "recover", question, _agree_to_lose)
    if refused is None:
        common.say(f"recover: {branch_off(plan.run, options, arguments.python)}")
    return refused or 0


def add_undo(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    common.add_changer(parser)


def run_undo(arguments: argparse.Namespace) -> int:
    """Take the last rollback, resume or phase back: everything outside nantui/ as it was, byte for byte."""
    layout = require_run(arguments.run)
    journal = RunRecord(layout).journal
    last = newest_in_force(journal)
    if last is None:
        raise UserError(f"{layout.run}: no {UNDOABLE} to take back", NO)
    question = f"take {what_it_was(last, journal)} back? What was trained since moves aside, no file is lost."
    return act(arguments, "undo", {"of": last.id}, f"{arguments.run}: {question}")


def add_resume(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    _add_settings(parser)
    common.add_flags(parser, "wait_gpu", "wait")
    phase = "of a finished run: a new phase"
    parser.add_argument("--phase", nargs="+", default=[], metavar="KEY=VALUE", help=phase)
    common.add_flags(parser, "our_runner")
    common.add_changer(parser, goes_on=True)


def _say_from_where(arguments: argparse.Namespace, layout: RunLayout, options: JsonObject) -> None:
    """Say which checkpoint a resume would go on from. Raises UserError where it would refuse."""
    record, changes = RunRecord(layout), {"set", "presets"} & options.keys()
    directory_for(record, with_settings(record.spec or Spec(dict(record.args)), options.get("set") or {}))
    next_phase = record.spec is not None and next_waits(record.spec.plan, record.journal)
    if has_trained(layout) and not (next_phase and "presets" not in changes):
        answer = ask_recovery("plan", layout.run, options, arguments.python)
        name, _, epoch, note = to_continue(layout, answer, bool(changes))
        common.say(f"would go on from {name}, after epoch {epoch}{note and '; '}{note}")


def run_resume(arguments: argparse.Namespace) -> int:
    """Continue a run under a supervisor, with changed settings really in effect."""

    def agreed(arguments: argparse.Namespace, layout: RunLayout) -> bool:
        if arguments.dry_run and trains(layout.run):
            why = f"nothing to resume; `nantui stop {layout.run}` first"
            raise UserError(f"{layout.run.name} is training: {why}", FAILED)
        if arguments.dry_run and not arguments.phase:
            _say_from_where(arguments, layout, options)
        return _agree_to_lose(arguments, layout)

    options = _settings_of(arguments)
    changes = [f"{name}={value}" for name, value in options.get("set", {}).items()] + arguments.preset
    if arguments.phase:
        schema = Schema.load(arguments.python)
        options["phase"] = checked(schema.parse_assignments(arguments.phase), schema)
        changes.append(f"a new phase: {', '.join(arguments.phase)}")
    with_changes = f" with {', '.join(changes)}" if changes else ""
    options |= common.given(arguments, "wait_gpu", "our_runner", "allow")
    question = f"{arguments.run}: continue{with_changes}?"
    status = act(arguments, "resume", options, question, agreed)
    if status or arguments.dry_run or not arguments.wait:
        return status
    return foreground(require_run(arguments.run).run, take_over=arguments.take_over)
