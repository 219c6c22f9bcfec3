"""What a command does is known without a process: each handler asks for no more than its port."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nantui.errors import UserError
from nantui.run.attempts import Attempt
from nantui.run.commands import Command
from nantui.run.events import AttemptStarted, Created, newest, of_kind
from nantui.run.journal import pending_edits
from nantui.run.spec import Spec, read_spec, write_spec
from nantui.run.status import RunStatus
from nantui.supervisor import handlers, recovery, run_spec
from nantui.supervisor.attempt_watch import Watch
from nantui.supervisor.handlers import HANDLERS, begun_before
from nantui.supervisor.ports import CommandPort
from nantui.supervisor.recovery import repair
from tests.supervisor.fake_port import FakePort


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePort:
    """A run that was asked for and has not trained yet; nobody else trains in it."""
    monkeypatch.setattr(handlers, "find_foreign", lambda run: [])
    fake = FakePort(tmp_path)
    write_spec(fake.layout.spec, Spec({"epochs": 3, "device": "cpu"}))
    return fake


def do(port: CommandPort, kind: str, **options: Any) -> str:
    command = Command(kind, options, id="c1", by="me@here")
    port.journal.append("command", by=command.by, command={"id": "c1", "kind": kind, "options": options})
    return HANDLERS[kind](port, command)


def test_a_start_is_in_the_journal_before_its_worker_is_made(port):
    assert do(port, "start", cwd="/home/me") == "attempt 1 started (start)"
    events = port.journal.events()
    assert newest(events, Created).cwd == "/home/me"
    started = newest(events, AttemptStarted)
    assert (started.attempt, started.mode, started.command) == (1, "start", "c1")
    ((attempt, cwd),) = port.begun
    assert (attempt.attempt, attempt.train["epochs"], cwd) == (1, 3, "/home/me")


def test_a_start_over_checkpoints_is_refused_and_makes_nothing(port):
    port.layout.weights.mkdir()
    port.layout.last.touch()
    with pytest.raises(UserError, match="has checkpoints already"):
        do(port, "start")
    assert not port.begun and not of_kind(port.journal.events(), AttemptStarted)


def test_edits_wait_for_the_next_start_and_are_in_it(port):
    assert do(port, "set", set={"lr0": 0.003}) == "kept for the next start: lr0=0.003"
    assert read_spec(port.layout.spec).train["lr0"] == 0.003
    do(port, "start")
    ((attempt, _),) = port.begun
    assert (attempt.asked, attempt.train["lr0"]) == ({"lr0": 0.003}, 0.003)


def test_a_saved_edit_is_taken_back_to_what_was_asked_before(port):
    do(port, "set", set={"lr0": 0.003, "mixup": 0.1, "guard": "observe"})
    with pytest.raises(UserError, match="nothing says what was asked for before"):
        do(port, "set", back=["lr0"])
    port.layout.args_yaml.write_text("lr0: 0.02\n")
    assert do(port, "set", back=["lr0", "guard"]) == "taken back: lr0, guard"
    spec = read_spec(port.layout.spec)
    assert (spec.train, spec.ours) == ({"epochs": 3, "device": "cpu", "mixup": 0.1, "lr0": 0.02}, {})
    assert pending_edits(port.journal.events()) == {"mixup": 0.1}, "a recovery asks for no more than this"


def test_a_stop_before_the_first_start_is_shown_as_stopped(port):
    assert do(port, "stop") == "stopped before it was started"
    assert port.state.state == "stopped"


def test_a_start_that_its_supervisor_did_not_survive_is_told_and_not_repeated(port):
    do(port, "start")
    assert begun_before(port, "c1") == "", "the process was never made"
    port.layout.events(1, 0).touch()
    assert begun_before(port, "c1") == "attempt 1 started (start)"
    assert begun_before(port, "c2") == ""


@pytest.mark.parametrize(
    ("kinds", "open_id"),
    [
        ([], None),
        (["rollback_begun"], "t1"),
        (["rollback_begun", "rollback_step"], "t1"),
        (["rollback_begun", "rollback_done"], None),
        (["rollback_begun", "rollback_reverted"], None),
        (["rollback_begun", "rollback_done", "undo_begun"], "t3"),
        (["undo_begun", "undo_done", "phase_begun"], "t3"),
        (["phase_begun", "phase_done", "note"], None),
    ],
)
def test_what_a_crash_has_interrupted_is_put_right_and_nothing_else(port, monkeypatch, kinds, open_id):
    asked: list[str] = []

    def helper(module: str, request: dict[str, Any], **how: Any) -> dict[str, Any]:
        asked.append(request["id"])
        assert request["action"] == "repair"
        return {"ok": True, "text": "put right"}

    monkeypatch.setattr(recovery, "helper", helper)
    for number, kind in enumerate(kinds, 1):
        port.journal.append(kind, id=f"t{number}")
    assert repair(port) == ("put right" if open_id else "")
    assert asked == ([open_id] if open_id else [])


@pytest.fixture
def asked_of_recovery(port: FakePort, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stopped run; `point` is what recovery finds to continue from, `actions` what it was asked for, each
    with its settings, `set`.
    """
    port.layout.weights.mkdir()
    port.layout.last.touch()
    port.journal.append("attempt_started", attempt=1, mode="start", command="before")
    told: dict[str, Any] = {"actions": [], "set": [], "point": {"name": "last.pt", "work": 12}}

    def act(port: CommandPort, command: Command, action: str) -> dict[str, Any]:
        told["actions"].append(action)
        told["set"].append(command.options.get("set"))
        return {"plan": {"restore_point": told["point"]}, "checkpoint": "weights/last.pt", "mode": "resume"}

    monkeypatch.setattr(handlers, "act", act)
    return told


def test_a_checkpoint_that_needs_no_repair_is_resumed_as_it_is(port, asked_of_recovery):
    do(port, "resume")
    assert asked_of_recovery["actions"] == ["plan", "keep"] and len(port.begun) == 1


@pytest.mark.parametrize(
    ("options", "proposes"), [({}, True), ({"presets": []}, False), ({"presets": ["nan-safe"]}, False)]
)
def test_who_names_no_presets_gets_none(port, asked_of_recovery, monkeypatch, options, proposes):
    """What --auto decides after a lost GPU is `presets` of []: nothing is to change."""
    working, asked = handlers.act, []

    def act(port: CommandPort, command: Command, action: str) -> dict[str, Any]:
        asked.append(command.options["propose"])
        return working(port, command, action)

    monkeypatch.setattr(handlers, "act", act)
    do(port, "recover", to="last.pt", **options)
    assert asked == [proposes]


def test_nothing_is_started_where_the_copies_for_undo_find_no_room(port, asked_of_recovery, monkeypatch):
    working = handlers.act

    def act(port: CommandPort, command: Command, action: str) -> dict[str, Any]:
        if action == "keep":
            raise UserError("weights/ could not be copied")
        return working(port, command, action)

    monkeypatch.setattr(handlers, "act", act)
    with pytest.raises(UserError, match="could not be copied"):
        do(port, "resume")
    assert not port.begun and not port.layout.attempt_numbers()


ROLLBACK = [("rollback_begun", {"id": "r1", "restore_point": "weights/epoch1.pt", "epoch": 1, "steps": []}),
            ("rollback_done", {"id": "r1", "text": ""})]  # fmt: skip
RESUME = [("kept", {"id": "r1", "epoch": 1})]


def test_a_run_that_was_finished_is_none_after_a_rollback(port, monkeypatch):
    port.state = replace(port.state, state="finished", text="the rollback was taken back", ending="an end")
    monkeypatch.setattr(handlers, "act", lambda port, command, action: {"text": "restored epoch2.pt"})
    assert do(port, "rollback", to="epoch2.pt") == "restored epoch2.pt"
    assert (port.state.state, port.state.text, port.state.ending) == ("stopped", "restored epoch2.pt", "")


def test_an_undo_tells_of_the_incident_that_its_rollback_had_answered(port, monkeypatch):
    port.journal.append("attempt_started", attempt=1, mode="start")
    port.journal.append(
        "incident", attempt=1, incident="nan_loss", epoch=2, step=3, action="ended", text="NaN"
    )
    port.journal.append("attempt_ended", attempt=1, outcome="diverged")
    for kind, fields in ROLLBACK:
        port.journal.append(kind, **fields)
    port.state = replace(port.state, state="stopped")

    def act(port: CommandPort, command: Command, action: str) -> dict[str, Any]:
        port.journal.append("undo_done", id="u1", of="r1")
        return {"text": "undone"}

    monkeypatch.setattr(handlers, "act", act)
    do(port, "undo")
    told = RunStatus(port.layout.run, "stopped", last_incident=port.state.last_incident).incident
    assert told is not None and (told.incident, told.epoch) == ("nan_loss", 2)


@pytest.mark.parametrize("between", [ROLLBACK, RESUME])
@pytest.mark.parametrize(
    ("first", "second"), [("diverged", "finished"), ("finished", "diverged"), ("stopped", "failed")]
)
def test_an_undo_shows_whether_what_stands_again_has_finished(port, monkeypatch, first, second, between):
    told = {"incident": "nan_loss", "epoch": 2, "step": 3, "action": "ended"}
    port.state = replace(port.state, state=second, ending="an end", last_incident=told, guarded=True)
    port.journal.append("attempt_started", attempt=1, mode="start")
    port.journal.append("attempt_ended", attempt=1, outcome=first)
    for kind, fields in between:
        port.journal.append(kind, **fields)
    port.journal.append("attempt_started", attempt=2, mode="resume")
    port.journal.append("attempt_ended", attempt=2, outcome=second)

    def act(port: CommandPort, command: Command, action: str) -> dict[str, Any]:
        port.journal.append("undo_done", id="u1", of="r1")
        return {"text": "undone"}

    monkeypatch.setattr(handlers, "act", act)
    assert do(port, "undo") == "undone"
    assert port.state.state == ("finished" if first == "finished" else "stopped")
    assert (port.state.ending, port.state.last_incident, port.state.guarded) == ("", None, None), "taken back"


def test_a_plain_resume_repairs_what_needs_it_before_anything_resumes(port, asked_of_recovery):
    asked_of_recovery["point"]["repair"] = True
    do(port, "resume")
    assert asked_of_recovery["actions"] == ["plan", "rollback"] and len(port.begun) == 1


def test_a_training_that_has_ended_by_itself_is_not_begun_again_in_its_place(port, asked_of_recovery):
    asked_of_recovery["point"]["revive"] = True
    with pytest.raises(UserError, match="ended by itself after epoch 12; to go on: .*patience"):
        do(port, "resume")
    assert asked_of_recovery["actions"] == ["plan"] and not port.begun
    do(port, "resume", set={"patience": 0})
    assert asked_of_recovery["actions"][-1] == "rollback" and len(port.begun) == 1


def test_what_is_saved_for_the_next_start_counts_where_a_resume_looks_for_its_checkpoint(
    port, asked_of_recovery
):
    port.journal.append("command", command={"kind": "set", "id": "s1", "options": {"set": {"epochs": 30}}})
    do(port, "resume", set={"lr0": 0.1})
    assert asked_of_recovery["set"][0] == {"epochs": 30, "lr0": 0.1}, "a finished run has more to train now"


def test_a_recovery_ends_no_attempt_that_another_command_began_since_it_was_planned(port, asked_of_recovery):
    port.layout.attempt(1).touch()
    with pytest.raises(UserError, match="attempt 1 has begun since this was planned; nothing was done"):
        do(port, "recover", attempt=0)
    assert not port.begun and not asked_of_recovery["actions"]
    # carried on by the next supervisor: no process of its own attempt was ever made
    port.journal.append("attempt_started", attempt=1, mode="resume", command="c1")
    do(port, "recover", attempt=0)
    assert len(port.begun) == 1


def test_a_recovery_of_a_run_whose_attempts_were_cleaned_away_is_none_too_late(port, asked_of_recovery):
    do(port, "recover", attempt=0)
    assert len(port.begun) == 1, "the journal alone knows of attempt 1"


def test_a_relative_data_set_that_is_nowhere_is_refused_before_anything_moves(
    port, asked_of_recovery, monkeypatch
):
    write_spec(port.layout.spec, Spec({"data": "ds/d.yaml", "task": "detect"}))
    asked: list[dict[str, Any]] = []

    def helper(module: str, request: dict[str, Any], **how: Any) -> dict[str, Any]:
        asked.append(request)
        return {"ok": False, "error": "no such file"}

    monkeypatch.setattr(run_spec, "helper", helper)
    for kind in ("resume", "recover"):
        with pytest.raises(UserError, match=f"is found nowhere: tried from {port.layout.run.parent}"):
            do(port, kind)
    assert not asked_of_recovery["actions"] and not port.begun
    assert asked[0] == {"data": {"name": "ds/d.yaml", "task": "detect"}}
    began = port.layout.run / "began"
    (began / "ds").mkdir(parents=True)
    (began / "ds/d.yaml").touch()
    port.journal.append("created", cwd=str(began))
    do(port, "resume")
    ((_, cwd),) = port.begun
    assert cwd == str(began)


def test_where_nothing_trains_there_is_no_memory_to_go_back_in(port):
    with pytest.raises(UserError, match="nothing trains here"):
        do(port, "rewind")
    assert not port.layout.rewind_request(1).exists()


def test_ranks_that_do_not_go_back_in_time_are_no_longer_asked(port, monkeypatch):
    monkeypatch.setattr(handlers, "REWIND_S", 0.0)
    monkeypatch.setattr(port, "worker_alive", lambda: True)
    port.watch = Watch(
        port.layout, Attempt(1, "t", 0.0, "start", None, {}, {}, "python"), activity="training"
    )
    with pytest.raises(UserError, match="did not go back"):
        do(port, "rewind")
    assert port.staged and not port.layout.rewind_request(1).exists()
