"""A supervisor that dies before it could report: the next one repeats nothing of what was done."""

from __future__ import annotations

import signal

import pytest

from nantui.machine.process_tree import send
from nantui.run import commands
from nantui.run.commands import Command, spool_for
from nantui.run.events import parse_all
from nantui.run.journal import rolled_back_before
from nantui.supervisor.client import carry_out
from tests.waiting import eventually


def die_unreported(run, command):
    """Leave the run as a supervisor does that is killed after an attempt has begun, before `command_done`."""
    run.kill_supervisor()
    lines = run.layout.journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"command_done"' not in line or command.id not in line]
    assert len(kept) == len(lines) - 1
    run.layout.journal.write_text("".join(kept))
    commands.put(spool_for(run.layout), command)


@pytest.fixture
def recovered(make_run):
    """A run whose second attempt trains after a recovery that was not reported yet, and the command."""
    run = make_run(epochs=100000)
    run.await_step()
    command = Command("recover", {"set": {"lr0": 0.003}})
    assert carry_out(run.path, command).ok
    run.await_state("running")
    die_unreported(run, command)
    return run, command


def reported(run, command):
    return [entry for entry in run.journal() if entry["kind"] == "command_done" and entry["id"] == command.id]


def stages(run):
    return [entry["stage"] for entry in run.journal() if entry["kind"] == "stage"]


def test_a_recovery_that_trains_already_is_only_reported(recovered):
    run, command = recovered
    trained, done_before = run.status().pids, stages(run)
    assert run.do("set", set={"lr0": 0.1}).ok
    (done,) = reported(run, command)
    assert done["ok"] and "attempt 2 started (resume" in done["text"]
    assert run.layout.attempt_numbers() == [1, 2] and run.status().pids == trained
    assert stages(run) == done_before


def test_a_start_that_trains_already_is_only_reported(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    asked = next(entry for entry in run.journal() if entry["kind"] == "command")["command"]
    command = Command(asked["kind"], asked["options"], asked["id"], asked["by"])
    die_unreported(run, command)
    assert run.do("set", set={"lr0": 0.1}).ok
    (done,) = reported(run, command)
    assert done["ok"] and "attempt 1 started (start)" in done["text"]


def test_an_attempt_that_was_announced_and_not_made_is_started(recovered):
    run, command = recovered
    for ref in run.members():
        send(ref, signal.SIGKILL)
    eventually(lambda: not run.members())
    for path in run.layout.attempts.glob("002.rank*"):
        path.unlink()
    assert run.do("set", set={"lr0": 0.1}).ok
    (done,) = reported(run, command)
    assert done["ok"] and "attempt 3 started (resume" in done["text"]
    run.await_state("running")


def test_nothing_is_started_while_nobody_can_tell_which_images_are_left_out(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    run.layout.quarantine.mkdir()
    assert run.do("stop").ok
    for kind in ("resume", "recover"):
        answer = run.do(kind)
        assert not answer.ok and "nothing was started" in answer.text and "\n" not in answer.text
        assert f"{run.layout.quarantine}, the images that are left out, cannot be read" in answer.text
        assert run.layout.attempt_numbers() == [1] and not run.members()
    run.layout.quarantine.rmdir()
    assert run.do("resume").ok
    run.await_state("running")


ROLLED_BACK = [
    {"kind": "rollback_begun", "id": "c1", "mode": "resume", "text": "restored epoch3.pt",
     "settings": [{"name": "lr0", "then": 0.003}, {"name": "batch", "then": 8, "kept": True}]},
    {"kind": "rollback_done", "id": "c1"},
]  # fmt: skip
ANSWER = {"mode": "resume", "asked": {"lr0": 0.003}, "text": "restored epoch3.pt"}


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ([], ANSWER),
        ([{"kind": "attempt_started", "attempt": 2, "command": "c1"}], ANSWER),
        ([{"kind": "attempt_started", "attempt": 2, "command": "c2"}], None),
        ([{"kind": "attempt_started", "attempt": 2}], None),
        ([{"kind": "rollback_begun", "id": "c2"}, {"kind": "rollback_done", "id": "c2"}], None),
    ],
)
def test_a_rollback_is_not_repeated_until_something_else_has_trained(more, answer):
    assert rolled_back_before(parse_all([*ROLLED_BACK, *more]), "c1") == answer
    assert rolled_back_before(parse_all(more), "c1") is None
