"""The one process that holds a run: its lock, its journal, its published state, and the worker it watches.

Commands are plain code that calls `pump` wherever it waits; `pump` does the chores (heartbeat, reaping,
reading what the ranks write), so that a supervisor in the middle of a long command still shows that it
lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.machine.process_identity import ProcessRef, alive, ref_from, ref_of, this_machine, this_process
from nantui.machine.process_tree import Leftover, end_all, members, own_children, shared_memory_of
from nantui.machine.waiting_process import WaitingProcess
from nantui.run.atomic_files import read_own_json
from nantui.run.attempts import Attempt, end_is_meant
from nantui.run.binding import HERE, STRANGE, standing
from nantui.run.documents import JsonObject
from nantui.run.endings import Traces
from nantui.run.events import Event, Incident, RewindDone, parse_all
from nantui.run.incidents import ENDED, is_suspicion
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.plan import after_the_end
from nantui.run.status import ACTIVE, RUNNING, STALLED, STARTING
from nantui.supervisor import state
from nantui.supervisor.attempt_watch import Watch
from nantui.supervisor.config import REWOUND, Config
from nantui.supervisor.gpu_marks import gpu_fault
from nantui.supervisor.helper_process import hash_of
from nantui.supervisor.hosts.leader import Leading
from nantui.supervisor.launch import next_worker, start_worker, working_place
from nantui.supervisor.notify.outbox import start_sender
from nantui.supervisor.outcome import REASON_ELSEWHERE, Ending, ending_of
from nantui.supervisor.recovery import is_automatic
from nantui.supervisor.run_spec import directory_of, own_spec
from nantui.supervisor.stacks import collect_stacks, hung_text
from nantui.terminal_text import printable
from nantui.words import count

Alert = tuple[str, str, object]
"""What happened, in a word and in words, and what tells it from another of its kind."""
NOTHING_SEEN = Traces()
MOST_TOLD = 50
"""Of what comes at once; a pipe holds them all, so that whoever reads it keeps nobody waiting."""


class LostRun(Exception):
    """The run was taken over, deleted, or lies at `place` now: this process must not act on it any more."""

    def __init__(self, text: str, place: Path | None = None) -> None:
        super().__init__(text)
        self.place = place


class Supervisor:
    """Holds the run in `layout`. One thread; `pump` is the only place where it waits."""

    def __init__(self, layout: RunLayout, lock: state.RunLock, config: Config) -> None:
        self.layout, self.lock, self.config, self.patience = layout, lock, config, config.patience
        self.journal = Journal(layout.journal)
        self._directory = os.open(layout.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.watch: Watch | None = None
        self.helpers: dict[int, subprocess.Popen[bytes]] = {}
        """What was started beside the worker: it is reaped by its owner and never taken for the worker's."""
        self._child: subprocess.Popen[bytes] | None = None
        self.hosts = Leading(layout, config.patience, lambda: [ref.pid for ref in self.find_members()])
        self.waiting: WaitingProcess | None = None
        """What becomes the next worker, where one was brought up early."""
        self._wish: JsonObject | None = None
        self.hung = ""
        """What hangs, once it has hung for so long that only its end helps."""
        self._hosts_text = ""
        self._published = self._notified = 0.0
        self._told: dict[subprocess.Popen[bytes], list[JsonObject]] = {}
        self.unwritten = [dict(json.loads(line)) for line in state.unwritten_lines(layout)]
        """Journal entries that the disk refused, oldest first, also an earlier supervisor's."""
        self.seen_start = False
        """Whether this very process saw the attempt begin, and so would have seen it end."""
        own = this_process()
        self.before = state.read_state(layout.supervisor) if standing(layout.run) != STRANGE else None
        before = self.before or state.SupervisorState(own, this_machine(), state="", since=time.time())
        self.state = replace(before, process=own, machine=this_machine(), doing=None)

    # what everybody sees

    def publish(self, **changes: Any) -> None:
        """Change the published state and write it. Raises LostRun."""
        if "state" in changes and changes["state"] != self.state.state:
            changes.setdefault("since", time.time())
        self.state = replace(self.state, **changes, heartbeat=time.time())
        if not self.lock.held():
            place = os.readlink(f"/proc/self/fd/{self._directory}")
            if place == str(self.layout.run):
                raise LostRun("the run was taken over; ending")
            if place.endswith(" (deleted)"):
                raise LostRun("the run directory was deleted")
            raise LostRun(f"the run lies in {place} now", Path(place))
        self._published = time.monotonic()
        try:
            state.write_state(self.layout.supervisor, self.state)
        except OSError as error:
            self.say(f"cannot write {self.layout.supervisor}: {error}")

    def stage(self, command: str, stage: str, text: str) -> None:
        """Say how far a long command is, in the journal and in the published state."""
        self.record("stage", command=command, stage=stage, text=text)
        doing = {**(self.state.doing or {}), "command": command, "stage": stage, "text": text}
        self.publish(doing=doing)

    def record(self, kind: str, **fields: Any) -> None:
        """Append to the journal what has happened already: on a full disk it waits and is tried again."""
        self.unwritten.append({"t": time.time(), "kind": kind, **fields})
        self.write_waiting()

    def events(self) -> list[Event]:
        """Return the journal's events, also those that wait for the disk."""
        return [*self.journal.events(), *parse_all(self.unwritten)]

    def write_waiting(self) -> None:
        """Write what could not be written before, in order."""
        while self.unwritten:
            try:
                self.journal.append(**self.unwritten[0])
            except OSError as error:
                self.say(f"the journal cannot be written ({error}); {len(self.unwritten)} entries wait")
                break
            self.unwritten.pop(0)
        state.keep_unwritten(self.layout, self.unwritten)

    def say(self, text: str) -> None:
        """Write a line into supervisor.log; on a full disk it is lost, and nothing else."""
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {printable(text)}", file=sys.stderr, flush=True)

    def tell(self, event: str, text: str, about: object = "") -> None:
        """Tell whoever the user named; once, where it is told again of the same `about`."""
        self._tell_all([(event, text, about or time.time())])

    def _tell_all(self, alerts: Sequence[Alert]) -> None:
        run, on = str(self.layout.run), self.config.notify.on
        notes: list[JsonObject] = [
            {"id": hash_of(f"{run} {kind} {about}"), "run": run, "event": kind, "text": printable(text)[:500]}
            for kind, text, about in alerts[-MOST_TOLD:]
            if kind in on
        ]
        if notes:
            self._notify(notes)

    def _notify(self, messages: list[JsonObject], well: bool = False) -> None:
        """Start what sends, which also takes up what was left unsent."""
        request = {"messages": messages, "well": well}
        if (child := start_sender(self.config.notify, request, self.say)) is not None:
            self.start_helper(child)
            self._told[child] = messages

    def start_helper(self, child: subprocess.Popen[bytes]) -> None:
        """Remember what was started beside the worker: it is never taken for a part of the training."""
        self.helpers[child.pid] = child

    # the worker

    def worker_alive(self) -> bool:
        """Tell whether the process that was started for the attempt lives, or is yet to be started."""
        if self.hosts.gathering:
            return True
        if self._child is not None:
            return self._child.poll() is None
        return alive(self.state.worker)

    def find_members(self) -> list[ProcessRef]:
        """Return every living process of the current attempt."""
        roots = [self.state.worker.pid] if self.state.worker and alive(self.state.worker) else []
        orphans = [pid for pid in own_children() if pid not in self.helpers]
        return members(self.state.attempt_uuid, [*roots, *orphans])

    def begin(self, attempt: Attempt, cwd: str | None) -> None:
        """Start the worker of `attempt` and publish it; with several hosts, once they are there."""
        if attempt.nnodes > 1:
            self.hosts.begin(attempt, cwd)
        else:
            self._child = self._become(attempt, cwd) or start_worker(self.layout, attempt, cwd)
        self.watch = Watch(self.layout, attempt)
        self.hung = ""
        self.seen_start = True
        self.publish(
            state=STARTING, attempt=attempt.attempt, attempt_uuid=attempt.uuid,
            worker=ref_of(self._child.pid) if self._child else None, text=self.hosts.text,
            guarded=None, ending="", last_incident=None, waiting=None,
        )  # fmt: skip

    def settle(self, seen: Traces = NOTHING_SEEN) -> Ending:
        """After the worker's end: end what it left, find out how it ended, beside what the caller has seen,
        and tell everybody. Raises UserError when processes of it do not die.
        """
        assert self.watch is not None, "settle follows begin or adopt"
        code = self._child.poll() if self._child else None  # the signals that follow are our own
        self.end_members(self.patience.terminate_s)
        self.read_watch()
        number = self.watch.attempt.attempt
        told = self.hosts.blame()  # a reason of its own says more than that a host's processes have ended
        elsewhere = told if REASON_ELSEWHERE.match(told) else seen.elsewhere or told
        gpu = "" if code == 0 else gpu_fault(self.watch.attempt.marks, self.start_helper)
        seen = replace(seen, code=code, elsewhere=elsewhere, seen=self.seen_start, gpu=gpu)
        ending = ending_of(self.layout, number, seen)
        step = self.watch.last_step
        self.record(
            "attempt_ended", attempt=number, outcome=ending.outcome,
            epoch=ending.epoch or (step.epoch if step else None),
            step=ending.step or (step.step if step else None), text=ending.text, cause=ending.cause.kind,
            evidence=ending.cause.evidence,
        )  # fmt: skip
        self._child, self.watch, self.hung = None, None, ""
        self.hosts.end()
        goes_on, more = after_the_end(self.layout.spec, self.journal.events())
        text = ending.shown or more
        if not goes_on:
            self.tell(ending.outcome, text, self.state.attempt_uuid)
        state = STARTING if goes_on else ending.outcome
        self.publish(state=state, text=text, worker=None, ending=ending.cause.kind)
        return ending

    def end_members(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL every process of the attempt. Raises UserError for what does not die.

        A rank that gets SIGTERM from elsewhere stops in order: this one is told that its end is meant.
        """
        if self._child is not None and self._child.poll() == -signal.SIGTERM:
            # A shell, or a script that waits for its ranks, dies of it at once; the ranks stop in order.
            end_all(self.find_members, self.pump, grace_s=self.patience.grace_s, limit_s=self.patience.die_s)
        pids = {ref.pid for ref in self.find_members()}
        if pids and self.state.attempt:
            end_is_meant(self.layout.end_request(self.state.attempt))
        left = end_all(self.find_members, self.pump, grace_s=grace_s, limit_s=self.patience.die_s)
        for path in shared_memory_of(pids - {one.pid for one in left}):
            path.unlink(missing_ok=True)
        self.refuse_leftover(left)

    def refuse_leftover(self, left: list[Leftover]) -> None:
        """Raise UserError when processes are left, with what they are and where they hang."""
        if left:
            names = ", ".join(map(str, left[:5]))
            found = count(len(left), "process")
            text = f"{found} not ended by SIGKILL: {names}; state D waits in the kernel (disk, driver)"
            self.publish(text=text)
            raise UserError(text, FAILED)

    def bring_up(self) -> None:
        """Have the next worker import what it needs, while others stop, plan or read."""
        if self.waiting is not None or standing(self.layout.run) != HERE:
            return
        try:
            spec = own_spec(self.layout)
            if spec is not None and spec.kind != "exec" and spec.nnodes == 1:
                self.waiting = next_worker(self.layout, spec, directory_of(self, spec, sure=False))
                self.start_helper(self.waiting.child)
                self.publish(waiting=ref_of(self.waiting.child.pid))
        except (UserError, OSError) as error:
            self.say(f"no worker is brought up early: {error}")

    def _become(self, attempt: Attempt, cwd: str | None) -> subprocess.Popen[bytes] | None:
        """Have what waits be the worker of `attempt`; None, and it is ended, where it is not the one."""
        waiting, self.waiting = self.waiting, None
        if waiting is None:
            return None
        self.helpers.pop(waiting.child.pid, None)
        with self.layout.attempt_log(attempt.attempt).open("ab") as log:
            if waiting.become(attempt.argv, working_place(self.layout, cwd), log.fileno()):
                return waiting.child
        self.say("the worker that was brought up early is not used")
        return None

    def _look_after_waiting(self) -> None:
        """Bring it up where a dialog is opened; end it once nobody needs it."""
        before, wish = self._wish, read_own_json(self.layout.wish)
        self._wish = wish if alive(ref_from(wish)) else None
        if self._wish not in (None, before):
            self.bring_up()
        needed = self._wish is not None or self.state.doing is not None
        if self.waiting is not None and self.waiting.is_over(needed):
            self.waiting.end()
            self.waiting = None
            self.publish(waiting=None)

    # chores

    def pump(self, seconds: float) -> None:
        """Wait, doing the chores."""
        until = time.monotonic() + seconds
        self.chores()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, self.patience.tick_s))
            if left > self.patience.tick_s:
                self.chores()

    def chores(self) -> None:
        """Reap, read what is new, notice a standstill, show that we live."""
        self._reap()
        self._gather()
        self.read_watch()
        self._look_after_waiting()
        if time.monotonic() - self._published > self.patience.heartbeat_s:
            self.write_waiting()
            self.publish()
        if time.monotonic() - self._notified > self.config.notify.heartbeat_s:
            self._notified = time.monotonic()
            gone = [child for child in self._told if child.poll() is not None]
            # A sender that was killed may not have kept what it was told; one that had keeps nothing twice.
            again = [note for child in gone for note in self._told.pop(child) if child.returncode]
            self._notify(well=self.state.state in ACTIVE - {STALLED}, messages=again)

    def _gather(self) -> None:
        """Start the worker once enough hosts are ready; say who is missing until then, and who is silent."""
        started = self.hosts.gather()
        if started is not None:
            self._child = started
            self.record("note", text=self.hosts.note, attempt=self.state.attempt)
            self.publish(worker=ref_of(started.pid), text="")
        elif self.watch is not None and self.hosts.text != self._hosts_text:
            self._hosts_text = self.hosts.text
            self.publish(text=self.hosts.text)

    def read_watch(self) -> None:
        """Take over what the ranks have written into the journal and the published state."""
        if self.watch is None:
            return
        new = self.watch.read()
        # Told before it is in the journal: whoever adopts the run after a kill in between tells it again.
        self._tell_all([alert for event, _ in new if (alert := _alert_of(event))])
        for event, fields in new:
            self.record(event.kind, **fields)
            if isinstance(event, Incident) and event.action == ENDED:
                self.bring_up()
        self._publish_progress(self.watch)

    def _publish_progress(self, watch: Watch) -> None:
        told: dict[str, Any] = {"last_incident": watch.last_incident, "guarded": watch.guarded}
        told["text"] = watch.unsaved if self.state.state == RUNNING else None
        changes = {name: one for name, one in told.items() if one not in (None, getattr(self.state, name))}
        if self.state.state == STARTING and watch.last_step is not None:
            changes["state"] = RUNNING
        if self.state.state in {RUNNING, STALLED, STARTING} and not self.hosts.gathering:
            changes.update(self._standstill_changes(watch))
        if changes:
            self.publish(**changes)

    def _standstill_changes(self, watch: Watch) -> dict[str, object]:
        silent_s, allowed_s = watch.silent_s(), watch.allowed_s(self.patience)
        if silent_s <= allowed_s:
            if self.state.state != STALLED:
                return {}
            self.record("note", text="steps again", attempt=watch.attempt.attempt)
            return {"state": RUNNING, "text": ""}
        if self.state.state != STALLED:
            found = collect_stacks(self.find_members(), self.layout, watch.attempt)
            usual_s, activity = watch.usual_step_s(), watch.activity or "unknown"
            text = f"no step for {silent_s:.0f} s (usually {usual_s:.2f} s), phase {activity}"
            self.record("note", text=f"stalled: {text}", attempt=watch.attempt.attempt, stacks=found)
            self.tell(STALLED, text)
            return {"state": STALLED, "text": text}
        if silent_s > allowed_s + self.patience.hung_s and not self.hung:
            ends = is_automatic(self)
            found = collect_stacks(self.find_members(), self.layout, watch.attempt, before_the_end=ends)
            self.hung = hung_text(silent_s, found)
            self.record("note", text=f"hung: {self.hung}", attempt=watch.attempt.attempt, stacks=found)
        return {}

    def _reap(self) -> None:
        """Take away dead orphans; the children that we wait for ourselves are left to their Popen."""
        self.helpers = {pid: child for pid, child in self.helpers.items() if child.poll() is None}
        known = {*self.helpers, *([self._child.pid] if self._child else [])}
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None or dead.si_pid in known:
                return
            os.waitpid(dead.si_pid, 0)


def _alert_of(event: Event) -> Alert | None:
    if isinstance(event, Incident):
        return "incident", f"{event.incident}: {event.text}", event.t
    if isinstance(event, RewindDone):
        return REWOUND, event.text, event.t
    return ("suspicion", event.text, event.t) if is_suspicion(event) else None
