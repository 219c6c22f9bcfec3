"""Stopping means stopped: an agreed step first, then signals, and never done before nothing is left.

A signal alone reaches the ranks at different steps and kills a save half way; so the request is a file that
all ranks agree on. Whoever does not follow within the time that is shown gets SIGTERM, then SIGKILL.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from nantui.errors import FAILED, UserError
from nantui.run import commands
from nantui.run.atomic_files import write_json
from nantui.run.attempts import read_exits
from nantui.run.commands import Command
from nantui.run.status import STOPPED, STOPPING
from nantui.supervisor.attempt_watch import ELSEWHERE, TRAINING, Watch
from nantui.supervisor.foreign.stop import stop_foreign
from nantui.supervisor.ports import StatusPort, StopPort
from nantui.words import count

POLL_S = 0.05
USUAL_STEPS = 20
SHOW_EVERY_S = 1.0
SHORT_GRACE_S = 0.5


def stop_run(port: StopPort, command: Command, *, at_once: bool) -> str:
    """Stop the worker and return once no process of it is left. Raises UserError for what does not die."""
    if port.watch is None:
        return _stop_without_worker(port, command, at_once)
    port.read_watch()
    port.publish(state=STOPPING)
    begun = time.monotonic()
    asked_for = port.watch.attempt.argv
    moved = bool(asked_for) and str(port.layout.run) not in asked_for  # it looks for a request where it was
    agreed = not (at_once or moved) and port.watch.stepping() and _ask_and_wait(port, port.watch, command)
    port.stage(command.id, "end", "ending its processes")
    port.refuse_leftover(port.end_members(SHORT_GRACE_S if agreed else port.patience.terminate_s))
    ending = port.settle(stopped_by=command.by, told=str(command.options.get("signal") or ""))
    _wait_while(port, port.hosts.still_there, port.patience.host_grace_s)
    others = port.hosts.still_there()
    took = time.monotonic() - begun
    where = f" at epoch {ending.epoch}, step {ending.step}" if ending.step else ""
    kept = f"; kept {ending.checkpoint}" if ending.checkpoint else ""
    if others:
        raise UserError(
            f"{ending.outcome}{where}, but {', '.join(others)} did not say that its processes ended", FAILED
        )
    return f"{ending.outcome}{where} after {took:.1f} s; no process is left{kept}"


def _stop_without_worker(port: StopPort, command: Command, at_once: bool) -> str:
    """End what is there where no attempt is watched: waiting hosts, leftovers, somebody else's training."""
    if dismissed := port.hosts.dismiss():
        return f"nothing was running; {count(dismissed, 'waiting host')} sent home"
    left = port.find_members()
    if left:
        port.refuse_leftover(port.end_members(port.patience.terminate_s))
        return f"ended {count(len(left), 'process')} that an earlier attempt had left"
    if os.path.isfile(port.layout.spec) and not port.layout.attempt_numbers():
        port.publish(state=STOPPED, text="stopped before it was started")
        return port.state.text
    return stop_foreign(port, command, at_once=at_once)


class Countdown:
    """How long until SIGTERM. Steps have little time to agree; a validation or a save under way has more.

    Each has an account of its own, so that a rank which hangs among steps is not waited for as long as a
    validation is.
    """

    def __init__(self, step_s: float, other_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`step_s` for phases with steps, `other_s` for all others, in s."""
        self._left = {True: step_s, False: other_s}
        self._clock, self._looked = clock, clock()

    def left_s(self, activity: str) -> float:
        """Charge the time since the last look to `activity`, and return what is left of its account in s."""
        now = self._clock()
        stepping = activity == TRAINING
        self._left[stepping] -= now - self._looked
        self._looked = now
        return self._left[stepping]


def _wait_while(port: StopPort, goes_on: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while goes_on() and time.monotonic() < until:
        port.pump(POLL_S)


def _ask_and_wait(port: StopPort, watch: Watch, command: Command) -> bool:
    """Leave the request and wait; True when the ranks ended by themselves, False when patience ran out."""
    patience, number = port.patience, watch.attempt.attempt
    signal = command.options.get("signal")
    request = {"id": command.id, "t": time.time(), "by": command.by, "signal": signal}
    try:
        write_json(port.layout.stop_request(number), request)
    except OSError as error:
        port.say(f"the ranks cannot be asked ({error.strerror}): they are ended by signals")
        return False
    countdown = Countdown(patience.stop_s + USUAL_STEPS * watch.usual_step_s(), patience.other_phase_s)
    if signal:
        countdown = Countdown(patience.grace_s, patience.grace_s)
    shown = -SHOW_EVERY_S
    while port.worker_alive():
        left_s = countdown.left_s(watch.activity)
        # A person who presses X while x waits means it; the kill itself is carried out right after.
        killed = any(waiting.kind == "kill" for _, waiting in commands.pending_commands(port.layout))
        if left_s < 0 or port.hosts.failure() or killed:
            return False
        if watch.activity != ELSEWHERE and len(read_exits(port.layout, number)) >= watch.ranks:
            _wait_while(port, port.worker_alive, patience.teardown_s)
            return True
        if time.monotonic() - shown >= SHOW_EVERY_S:
            shown = time.monotonic()
            _show_wait(port, watch.activity, left_s)
        port.pump(POLL_S)
    return True


def _show_wait(port: StatusPort, activity: str, left_s: float) -> None:
    what = "the agreed step" if activity == TRAINING else f"{activity or 'the worker'} to end"
    text = f"waiting for {what}; SIGTERM in {left_s:.0f} s, X ends it now"
    port.publish(doing={**(port.state.doing or {}), "stage": "agree", "text": text})
