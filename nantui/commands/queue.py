"""Runs that train one after the other, as soon as their devices are free: add, list, move, remove, pause."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections import ChainMap
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path

from nantui.commands import common, starting
from nantui.errors import NO, UserError
from nantui.machine.gpus import SILENT, WAITED_FOR, Sampler, visible_indexes, words_of
from nantui.run.spec import Spec, kept_environment
from nantui.settings.presets import load_yaml
from nantui.settings.schema import Schema
from nantui.settings.values import show_value
from nantui.supervisor.queue import entries
from nantui.supervisor.queue.devices import ANY, look_at_queue
from nantui.supervisor.queue.entries import WAITING, Entry
from nantui.terminal_text import printable
from nantui.words import count

COMMA = re.compile(r",(?![^\[(]*[\])])")
"""A comma between values, and none within [0,1]."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui queue` takes."""
    action = "what to do (default: list)"
    parser.add_argument("action", nargs="?", choices=[*ACTIONS], default="list", help=action)
    words = "add: key=value, as for `nantui train`; move: NUMBER PLACE; remove: NUMBER… or all"
    parser.add_argument("words", nargs="*", metavar="WORD", help=words)
    each = "a run for each value; all combinations"
    parser.add_argument("--each", action="append", default=[], metavar="KEY=A,B", help=each)
    parser.add_argument("--runs", type=Path, metavar="FILE", help="a run for each mapping of a YAML list")
    script = "a script of your own instead, e.g. 'python tune.py'"
    parser.add_argument("--exec", metavar="COMMAND", help=script)
    common.add_flags(parser, share="may share a GPU with others that may, where memory is predicted to do")
    starting.add_asked(parser)
    common.add_changer(parser)
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked, and show the queue where JSON is asked for. Raises UserError."""
    if arguments.action != "list":
        common.refuse_read_only(arguments)
    status = ACTIONS[arguments.action](arguments) or 0
    if arguments.action != "list" and arguments.json and not arguments.dry_run and not status:
        _list(arguments)
    return status


def _add(arguments: argparse.Namespace) -> None:
    schema = Schema.load(arguments.python)
    new = _script(arguments, schema) if arguments.exec else _trainings(arguments, schema)
    if not new:
        return
    queue = entries.change(lambda queue: queue.added(new, kept_environment()))
    entries.wake()
    if not arguments.json:
        print("\n".join(entry.run for entry in new))
    waiting = count(len(queue.in_state(WAITING)), "run")
    paused = ", paused" if queue.paused else ""
    common.say(f"{count(len(new), 'run')} added, {waiting} waiting{paused}: nantui queue")


def _trainings(arguments: argparse.Namespace, schema: Schema) -> list[Entry]:
    """Return the runs that were made for the arguments, none where it was only asked which."""
    from nantui.machine.training_python import training_python
    from nantui.supervisor.client import make_directories, make_run

    wanted = [*_every(arguments, schema)]
    for device in {str(one.train.get("device") or "") for one, _ in wanted}:
        _refuse_too_many(device)
    entries.read_queue().refuse_more(len(wanted))
    for line in starting.remarks(schema, wanted[0][0].first):
        common.say(line)
    if arguments.dry_run:
        lines = [f"would add model={one.train['model']} {asks}".rstrip() for one, asks in wanted]
        common.say("\n".join(lines))
        return []
    python, cwd, new = training_python(arguments.python), os.getcwd(), []
    made = make_directories([one.train for one, _ in wanted], python)
    for (one, asks), answer in zip(wanted, made, strict=True):
        where, args = Path(answer["save_dir"]), dict(answer["args"])
        plan = one.plan(arguments.plan, schema, args) if one.phases else None
        make_run(where, Spec(args, one.ours, python, arguments.auto, plan=plan))
        device = ",".join(words_of(one.train.get("device")))
        new.append(Entry(0, str(where), cwd, device, arguments.share, asks))
    return new


def _script(arguments: argparse.Namespace, schema: Schema) -> list[Entry]:
    given, argv = schema.parse_assignments(arguments.words), starting.resolved(shlex.split(arguments.exec))
    if {*given} - {"device"}:
        raise UserError("--exec takes device= and no other setting: the script says the rest")
    _refuse_too_many(given.get("device"))
    where = starting.run_directory(None, argv)
    if arguments.dry_run:
        common.say(f"would add {' '.join(argv)} as {where}")
        return []
    layout, device = starting.new_run(where, argv, arguments.auto), ",".join(words_of(given.get("device")))
    return [Entry(0, str(layout.run), os.getcwd(), device, arguments.share, arguments.exec)]


def _every(arguments: argparse.Namespace, schema: Schema) -> Iterator[tuple[starting.Asked, str]]:
    """Yield each run as asked for, and what tells it from the others. Words on the line win over files, and
    `--each` over both. Raises UserError.
    """
    config = starting.read_config(arguments.config, schema, arguments.python)
    words = schema.parse_assignments(arguments.words)
    choices = []
    for each in arguments.each:
        name, _, values = each.partition("=")
        choices.append([schema.parse_assignments([f"{name}={value}"]) for value in COMMA.split(values)])
    for one in _read_runs(arguments.runs, schema) if arguments.runs else [{}]:
        for chosen in product(*choices):
            settings = dict(ChainMap(*reversed(chosen), words, one, config))
            own = [name for name in settings if name in ChainMap(*chosen, one)]
            asks = " ".join(f"{name}={show_value(settings[name])}" for name in own)
            yield starting.ask(settings, arguments, schema), asks


def _read_runs(path: Path, schema: Schema) -> list[dict[str, object]]:
    """Return the settings of each run in a YAML list. Raises UserError, which names the first bad one."""
    wanted = "--runs wants a YAML list of runs, e.g. '- {model: yolo11n.pt, data: shapes.yaml, lr0: 0.003}'"
    document = load_yaml(path, list, wanted)
    if not document:
        raise UserError(f"{path}: {wanted}")
    runs = []
    for number, one in enumerate(document, 1):
        if not isinstance(one, dict):
            raise UserError(f"{path}, run {number}: no settings; {wanted}")
        try:
            runs.append(schema.check(one))
        except UserError as error:
            raise UserError(f"{path}, run {number}: {error}") from None
    return runs


def _refuse_too_many(device: object) -> None:
    """Raise UserError for more GPUs of any kind than this host has: nothing would ever free them."""
    wanted = words_of(device).count(ANY)
    if not wanted:
        return
    with common.said_if_slow(WAITED_FOR):
        sample = Sampler().sample()
    there = len(visible_indexes(sample.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")))
    if wanted > there and sample.note != SILENT:
        asks = f"device={device}: asks for {count(wanted, 'GPU')}"
        raise UserError(f"{asks}, {there} are seen here; name them, or cpu")


def _move(arguments: argparse.Namespace) -> None:
    if len(arguments.words) != 2 or not all(word.isdigit() for word in arguments.words):
        raise UserError("move what, where? nantui queue move NUMBER PLACE, e.g. nantui queue move 7 1")
    number, place = arguments.words[0], int(arguments.words[1])
    after = entries.moved(entries.read_queue(), number, place)
    if not arguments.dry_run:
        after = entries.change(lambda queue: entries.moved(queue, number, place))
    found = [str(entry.number) for entry in after.in_state(WAITING)].index(number) + 1
    common.say(f"#{number} {'would be' if arguments.dry_run else 'is'} at place {found} of those that wait")


def _remove(arguments: argparse.Namespace) -> int:
    """Take waiting runs out of the queue, and away the directories that were made for them."""
    if not arguments.words:
        raise UserError("remove which? nantui queue remove NUMBER…, or all")
    chosen = entries.numbered(entries.read_queue(), arguments.words)
    runs = count(len(chosen), "waiting run")
    if arguments.dry_run:
        common.say("\n".join(f"would remove {entry.name}" for entry in chosen) or "nothing waits")
        return 0
    if not common.confirm(arguments, f"Remove {runs} from the queue, and the directories made for them?"):
        common.say("nothing was done")
        return NO
    common.say(f"removed {count(entries.take_out(arguments.words), 'waiting run')}")
    return 0


def _pause(arguments: argparse.Namespace) -> None:
    paused = arguments.action == "pause"
    if not arguments.dry_run:
        entries.pause(paused)
    would = "would be " if arguments.dry_run else ""
    common.say(f"the queue {would}paused: what trains goes on" if paused else f"the queue {would}resumed")


def _list(arguments: argparse.Namespace) -> None:
    with common.said_if_slow(WAITED_FOR):
        now = look_at_queue()
    queue, waits = now.queue, now.waits_for
    if arguments.json:
        rows = [asdict(one) | {"waits_for": waits.get(one.run, "")} for one in queue.entries]
        for row in rows:
            del row["environment"]
        common.emit({"paused": queue.paused, "served": entries.is_served(), "runs": rows})
        return
    for entry in queue.entries:
        status = now.going.get(entry.run)
        epoch = f"epoch {status.epoch}/{status.epochs or '?'}" if status and status.epoch else ""
        device = f"device={named}" if (named := ",".join(entry.on) or entry.device) else "any GPU"
        told = [epoch, entry.asks, waits.get(entry.run, ""), entry.text]
        begins = [f"#{entry.number:<5}{entry.state:<9}", printable(entry.run), device]
        print("  ".join([*begins, *(printable(text) for text in told if text)]))
    waiting = count(len(queue.in_state(WAITING)), "run")
    common.say(f"{waiting} waiting{', paused: nantui queue resume' if queue.paused else ''}")


ACTIONS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "list": _list, "add": _add, "move": _move, "remove": _remove, "pause": _pause, "resume": _pause,
}  # fmt: skip
