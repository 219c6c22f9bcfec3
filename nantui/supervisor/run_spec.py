"""What a run is asked to be, as commands act on it and change it.

A spec that is acted on names an interpreter and a command, so it must be the user's own; a run without one is
what its args.yaml says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.attempts import read_attempt
from nantui.run.commands import Command
from nantui.run.documents import JsonObject
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord, is_relative, places_of, started_in
from nantui.run.spec import Spec, own_uids, read_args, read_spec, write_spec
from nantui.supervisor.helper_process import PREPARE, helper
from nantui.supervisor.launch import cwd_of
from nantui.supervisor.ports import RunPort

_found: set[tuple[str | None, ...]] = set()
"""Data sets that Ultralytics knows by name: it need not be imported again to say so."""


def own_spec(layout: RunLayout) -> Spec | None:
    """Return the spec with what it would run, None without one. Raises UserError where another wrote it."""
    mine = own_uids(layout.lock)
    try:
        owner = os.stat(layout.spec).st_uid
    except OSError:
        return None
    if owner not in mine:
        raise UserError(
            f"{layout.spec} belongs to another user (uid {owner}): the program it names would run as you;"
            " copy the run, look at that file, and start from the copy",
            FAILED,
        )
    return read_spec(layout.spec, trusted=mine)


def spec_of(port: RunPort) -> Spec:
    """Return what to train; a foreign run's spec is its args.yaml. Raises UserError when there is neither."""
    spec = own_spec(port.layout)
    if spec is not None:
        return spec
    args = read_args(port.layout.args_yaml)
    if not args:
        raise UserError(
            f"{port.layout.run}: neither nantui/spec.yaml nor a readable args.yaml says what to train;"
            " put its args.yaml back, or begin a new run from a checkpoint: nantui train model=FILE data=FILE"
        )
    return Spec(train=args, created=time.time())


def refuse_missing(asked: Mapping[str, Any]) -> None:
    """Raise UserError for a file by its full path that is not there, before anything is done for it."""
    for name in ("data", "model"):
        if os.path.isabs(path := str(asked.get(name) or "")) and not os.path.exists(path):
            raise UserError(f"{name}={path}: no such file here; nothing was done", FAILED)


def directory_of(port: RunPort, spec: Spec, sure: bool = True) -> str | None:
    """Return the same for the run that a supervisor holds. Raises UserError."""
    record = RunRecord(port.layout, trusted=own_uids(port.layout.lock))
    return directory_for(record, spec, sure, port.pump)


def directory_for(
    record: RunRecord, spec: Spec, sure: bool = True, pump: Callable[[float], None] = time.sleep
) -> str | None:
    """Return the directory to train in, so that a relative path means what it meant at the beginning.

    Where it is to be `sure`, raises UserError, before anything starts, for a data set that is found nowhere,
    also by Ultralytics, which knows names of its own (`coco8.yaml`) and is asked once.
    """
    written, data = cwd_of(record.journal), spec.train.get("data")
    if spec.kind == "exec" or not is_relative(data):
        return written
    if place := started_in(record, str(data)):
        return str(place)
    request = {"data": {"name": data, "task": spec.train.get("task")}}
    known = (str(record.run), spec.python, written, str(request))
    if not sure or known in _found:
        return written
    asked = helper(PREPARE, request, python=spec.python, cwd=written or str(record.run), pump=pump)
    if not asked.get("ok"):
        tried = ", ".join(map(str, places_of(record)))
        raise UserError(f"data={data} is found nowhere: tried from {tried}; give it with --set data=", FAILED)
    _found.add(known)
    return written


def taken_back(port: RunPort, names: Sequence[str]) -> Spec:
    """Return the spec with these settings as the newest attempt was asked for them, or not at all."""
    spec, attempt = spec_of(port), read_attempt(port.layout, port.layout.newest_attempt() or 0)
    train, ours = (attempt.train, attempt.ours) if attempt else (read_args(port.layout.args_yaml), {})
    if not train:
        raise UserError(f"nothing says what was asked for before: set {', '.join(names)} again", FAILED)
    return replace(spec, train=_with(spec.train, train, names), ours=_with(spec.ours, ours, names))


def _with(now: Mapping[str, Any], before: Mapping[str, Any], names: Sequence[str]) -> JsonObject:
    """Return `now` with the values of `before` for `names`; what was not there before is left out."""
    kept = {name: value for name, value in now.items() if name not in names}
    return {**kept, **{name: before[name] for name in names if name in before}}


def leave_the_script(port: RunPort, command: Command) -> None:
    """Let our own runner go on with an exec run, where a person asked for that."""
    spec = own_spec(port.layout)
    if spec is None or spec.kind != "exec" or not command.options.get("our_runner"):
        return
    args = read_args(port.layout.args_yaml)
    if not args:
        raise UserError(f"{port.layout.args_yaml} is missing: only its script knows what to train")
    write_spec(port.layout.spec, replace(spec, kind="train", exec=None, train={**args, **spec.train}))
    port.journal.append("note", by=command.by, text="goes on without its script, under nantui's own runner")


def stay_automatic(port: RunPort, command: Command) -> None:
    """From now on the ladder may recover the run by itself, where a person asked for that."""
    if command.options.get("auto"):
        write_spec(port.layout.spec, replace(spec_of(port), auto=True))
        port.journal.append("note", by=command.by, text="recovers by itself from now on")
