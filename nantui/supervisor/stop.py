"""Stopping means stopped: an agreed step first, then signals, and never done before nothing is left.

A signal alone reaches the ranks at different steps and kills a save half way; so the request is a file that
all ranks agree on. Whoever does not follow within the time that is shown gets SIGTERM, then SIGKILL.

A training that nantui did not start is stopped once a person has seen whose it is, and how it was started is
kept.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.machine.process_tree import variables_of
from nantui.run import commands
from nantui.run.atomic_files import write_json
from nantui.run.attempts import read_exits
from nantui.run.binding import bind
from nantui.run.commands import Command
from nantui.run.documents import JsonObject
from nantui.run.endings import Traces
from nantui.run.spec import Spec, kept_environment, read_args, read_spec, write_spec
from nantui.run.status import STOPPED, STOPPING
from nantui.supervisor.attempt_watch import ELSEWHERE, TRAINING, Watch
from nantui.supervisor.directories import other_place
from nantui.supervisor.foreign import ForeignProcess, came_back, describe, find_foreign, link_of, stop_tree
from nantui.supervisor.ports import CommandPort, RunPort
from nantui.supervisor.stacks import collect_stacks, hung_text
from nantui.words import count

FOREIGN_GRACE_S = 5.0
POLL_S = 0.05
USUAL_STEPS = 20
SHOW_EVERY_S = 1.0
HANGS_S, HANGS_STEPS = 1.5, 5
"""After so many seconds and usual steps without a step somebody wants to know which rank is waited for."""
SHORT_GRACE_S = 0.5


def stop_run(port: CommandPort, command: Command, *, at_once: bool) -> str:
    """Stop the worker and return once no process of it is left. Raises UserError for what does not die."""
    if port.watch is None:
        return _stop_without_worker(port, command, at_once)
    port.read_watch()
    port.publish(state=STOPPING)
    begun = time.monotonic()
    moved = other_place(port.layout.run, port.watch.attempt)  # it looks for a request where it was
    stepped = port.watch.stepping()
    agreed = not (at_once or moved) and stepped and _ask_and_wait(port, port.watch, command)
    port.stage(command.id, "end", "ending its processes")
    port.end_members(SHORT_GRACE_S if agreed else port.patience.terminate_s)
    told = command.options.get("signal")
    ending = port.settle(Traces(killed_by=command.by, signals=[str(told)] if told else []))
    _wait_while(port, port.hosts.still_there, port.patience.host_grace_s)
    others = port.hosts.still_there()
    took = time.monotonic() - begun
    where = f" at epoch {ending.epoch}, step {ending.step}" if ending.step else ""
    kept = f"; kept {ending.checkpoint}" if ending.checkpoint else "; kept no stop point" if stepped else ""
    if others:
        raise UserError(
            f"{ending.outcome}{where}, but {', '.join(others)} did not say that its processes ended", FAILED
        )
    return f"{ending.outcome}{where} after {took:.1f} s; no process is left{kept}"


def _stop_without_worker(port: CommandPort, command: Command, at_once: bool) -> str:
    """End what is there where no attempt is watched: waiting hosts, leftovers, somebody else's training."""
    if dismissed := port.hosts.dismiss():
        return f"nothing was running; {count(dismissed, 'waiting host')} sent home"
    left = port.find_members()
    if left:
        port.end_members(port.patience.terminate_s)
        return f"ended {count(len(left), 'process')} that an earlier attempt had left"
    if os.path.isfile(port.layout.spec) and not port.layout.attempt_numbers():
        port.publish(state=STOPPED, text="stopped before it was started")
        return port.state.text
    return stop_foreign(port, command, at_once=at_once)


def _wait_while(port: CommandPort, goes_on: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while goes_on() and time.monotonic() < until:
        port.pump(POLL_S)


def _ask_and_wait(port: CommandPort, watch: Watch, command: Command) -> bool:
    """Leave the request and wait; True when the ranks ended by themselves, False when patience ran out."""
    patience, number = port.patience, watch.attempt.attempt
    signal = command.options.get("signal")
    request = {"id": command.id, "t": time.time(), "by": command.by, "signal": signal}
    try:
        write_json(port.layout.stop_request(number), request)
    except OSError as error:
        port.say(f"the ranks cannot be asked ({error.strerror}): they are ended by signals")
        return False
    # Steps have little time to agree, a validation or a save under way has more, each on an account of its
    # own: a rank that hangs among steps is not waited for as long as a validation.
    step_s = patience.stop_s + USUAL_STEPS * watch.usual_step_s()
    left_s = {True: patience.grace_s if signal else step_s}
    left_s[False] = patience.grace_s if signal else patience.other_phase_s
    looked, shown, found = time.monotonic(), -SHOW_EVERY_S, list[JsonObject]()
    while port.worker_alive():
        now, stepping = time.monotonic(), watch.activity == TRAINING
        left_s[stepping] -= now - looked
        looked = now
        # A person who presses X while x waits means it; the kill itself is carried out right after.
        killed = any(waiting.kind == "kill" for _, waiting in commands.pending_commands(port.layout))
        if left_s[stepping] < 0 or port.hosts.failure() or killed:
            return False
        if watch.activity != ELSEWHERE and len(read_exits(port.layout, number)) >= watch.ranks:
            _wait_while(port, port.worker_alive, patience.teardown_s)
            return True
        if now - shown >= SHOW_EVERY_S:
            shown = now
            what = "the agreed step" if stepping else f"{watch.activity or 'the worker'} to end"
            silent_s = watch.silent_s()
            if stepping and silent_s > HANGS_S + HANGS_STEPS * watch.usual_step_s():
                found = found or collect_stacks(port.find_members(), port.layout, watch.attempt)
                what += f" ({hung_text(silent_s, [one for one in found if not one['stack']] or found)})"
            text = f"waiting for {what}; SIGTERM in {left_s[stepping]:.0f} s, x or X ends it now"
            port.publish(doing={**(port.state.doing or {}), "stage": "agree", "text": text})
        port.pump(POLL_S)
    return True


def stop_foreign(port: CommandPort, command: Command, *, at_once: bool) -> str:
    """Stop the trainings of this run that nantui did not start, where the command says `foreign`: the person
    has seen whose process it is. Raises UserError.
    """
    found = find_foreign(port.layout.run)
    if not found:
        return "nothing was running"
    if not command.options.get("foreign"):
        raise UserError(f"{describe(found[0])} was not started by nantui; confirm by the run's name", FAILED)
    texts = [_stop_one(port, command, training, at_once) for training in found]
    port.publish(state=STOPPED, text="; ".join(texts))
    return "; ".join(texts)


def _stop_one(port: CommandPort, command: Command, training: ForeignProcess, at_once: bool) -> str:
    keep_for_resume(port, training)
    port.publish(state=STOPPING)
    port.stage(command.id, "end", f"ending process {training.ref.pid} and what it started")
    below = len(training.pids) - 1
    grace_s = port.patience.terminate_s if at_once else FOREIGN_GRACE_S
    port.refuse_leftover(stop_tree(training, port.pump, grace_s=grace_s))
    text = f"stopped process {training.ref.pid} and {below} below it"
    if back := came_back(port.layout.run, training, port.pump):
        raise UserError(f"{text}, but it was started again at once: end {back} first", FAILED)
    return text


def keep_for_resume(port: RunPort, training: ForeignProcess) -> None:
    """Write down command, cwd and variables; a run of the user's own script goes on through that script."""
    program = program_of(training)
    how: dict[str, object] = {
        "argv": [program, *training.argv[1:]],
        "cwd": training.cwd,
        "env": kept_environment(variables_of(training.ref.pid)),
    }
    spec = read_spec(port.layout.spec)
    if spec is None:
        spec = Spec(train=read_args(port.layout.args_yaml), created=time.time())
    kind = "exec" if runs_a_script(training.argv) else spec.kind
    python = spec.python or (program if "python" in Path(program).name else "")
    write_spec(port.layout.spec, replace(spec, kind=kind, exec=how, python=python))
    bind(port.layout.run)
    port.journal.append("note", text=f"stopping a foreign training: {describe(training)}")


def runs_a_script(argv: Sequence[str]) -> bool:
    """Tell whether a command is Python with a script of somebody's own, no module and no generated file."""
    script = next((word for word in argv[1:] if not word.startswith("-")), "")
    generated = Path(script).name.startswith("_temp_")
    module = "-m" in argv[1:2] or "-c" in argv[1:2]
    return script.endswith(".py") and not (module or generated) and "python" in Path(argv[0]).name


def program_of(training: ForeignProcess) -> str:
    """Return the full path of the program as it was called: a link of a virtual environment stays one."""
    word = training.argv[0]
    if "/" in word:
        return os.path.normpath(os.path.join(training.cwd or "/", word))
    path = variables_of(training.ref.pid).get("PATH")
    return shutil.which(word, path=path) or link_of(training.ref.pid, "exe") or word
