"""What happens to a training when something around it is killed, with real processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest

from nantui.machine.process_identity import alive, ref_of
from nantui.machine.process_tree import send
from nantui.run.atomic_files import read_json, write_json
from nantui.run.commands import Command
from nantui.supervisor.client import submit
from nantui.supervisor.state import read_state
from tests.supervisor.chaos import VICTIMS, chaos
from tests.waiting import eventually


def test_a_killed_supervisor_changes_nothing_for_the_worker_and_the_next_command_adopts_it(make_run):
    run = make_run(epochs=100000)
    before = run.await_step()
    run.kill_supervisor()
    status = run.status()
    assert status.state == "running" and status.pids == before.pids
    outcome = run.do("stop")
    assert outcome.ok, outcome.text
    assert run.members() == []
    assert run.status().state == "stopped"
    assert "adopted" in run.kinds()
    assert run.kinds().count("in_effect") == 1, "an adoption repeats nothing"


def test_a_worker_that_finished_unseen_is_finished(make_run):
    run = make_run(epochs=2, steps=10)
    run.await_step()
    run.kill_supervisor()
    eventually(lambda: not run.members())
    assert run.status().state == "finished"
    assert run.do("stop").ok
    assert run.status().state == "finished"
    assert run.kinds().count("attempt_ended") == 1


def test_everything_killed_is_lost_and_can_be_resumed(make_run):
    run = make_run(steps=2)
    eventually(run.layout.last.is_file)
    run.kill_supervisor()
    for ref in run.members():
        send(ref, signal.SIGKILL)
    eventually(lambda: not run.members())
    assert run.status().state == "lost"
    outcome = run.do("resume")
    assert outcome.ok, outcome.text
    assert "lost" in run.kinds()
    eventually(lambda: run.status().attempt == 2 and run.status().state == "running")


@pytest.mark.parametrize("name", ["boot_id", "pid_namespace"])
def test_pids_of_another_boot_or_container_are_not_trusted(make_run, name):
    run = make_run(epochs=100000)
    run.await_step()
    run.kill_supervisor()
    document = read_json(run.layout.supervisor)
    write_json(run.layout.supervisor, {**document, name: "another"})
    assert run.status().state == "lost"


def test_a_reused_pid_is_not_the_worker(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    state = read_state(run.layout.supervisor)
    stranger = ref_of(os.getpid())
    assert alive(stranger) and not alive(
        type(stranger)(stranger.pid, state.worker.created, state.worker.ticks)
    )


def test_a_killed_rank_fails_the_attempt_and_leaves_nothing(make_run):
    run = make_run(devices=2, epochs=100000)
    run.await_step()
    os.kill(run.rank_pid(1), signal.SIGKILL)
    run.await_state("failed")
    assert run.members() == []


def test_a_killed_launcher_leaves_no_orphaned_ranks(make_run):
    run = make_run(devices=2, epochs=100000)
    status = run.await_step()
    os.kill(status.pids[0], signal.SIGKILL)
    status = run.await_state("failed")
    assert run.members() == []
    assert "SIGKILL" in status.text


def test_a_command_that_is_sent_twice_acts_once(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    command = Command("set", {"set": {"lr0": 0.002}})
    submit(run.path, command)
    eventually(lambda: any(entry.get("id") == command.id for entry in run.journal()))
    submit(run.path, command)
    eventually(lambda: not list(run.layout.commands.glob("*.json")))
    assert sum(entry.get("id") == command.id for entry in run.journal()) == 1


def test_a_client_killed_in_the_middle_of_recover_changes_nothing(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    code = (
        "import sys; from nantui.supervisor.client import carry_out; from nantui.run.commands import Command;"
        "carry_out(sys.argv[1], Command('recover', {'set': {'act_s': 1}}))"
    )
    client = subprocess.Popen([sys.executable, "-c", code, str(run.path)])
    eventually(lambda: "stage" in run.kinds())
    client.kill()
    client.wait()
    eventually(lambda: run.status().attempt == 2 and run.status().state == "running")


def test_a_supervisor_killed_in_the_middle_of_recover_is_carried_on_by_the_next(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    command = Command("recover", {"set": {"act_s": 1}})
    submit(run.path, command)
    eventually(lambda: any(entry.get("stage") == "rollback" for entry in run.journal()))
    run.kill_supervisor()
    assert run.do("set", set={"lr0": 0.1}).ok
    eventually(lambda: run.status().attempt == 2 and run.status().state == "running")
    assert run.outcome_of(command)["ok"]


def test_of_two_recoveries_at_once_the_second_does_not_end_what_the_first_began(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    first, second = (Command("recover", {"set": {"act_s": 1}}) for _ in range(2))
    submit(run.path, first)
    submit(run.path, second)
    done = eventually(lambda: run.outcome_of(second))
    assert run.outcome_of(first)["ok"]
    assert not done["ok"] and "another recovery came first" in done["text"]
    assert run.await_state("running").attempt == 2
    assert run.do("recover").ok, "whoever has looked may recover again"


def test_a_plan_from_before_an_attempt_began_does_not_end_it(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    assert run.do("recover", attempt=1).ok, "planned while attempt 1 trained"
    eventually(lambda: run.status().attempt == 2 and run.status().state == "running")
    late = run.do("recover", attempt=1)  # from a dialog that was left open
    assert not late.ok and "attempt 2 has begun since this was planned" in late.text
    assert run.status().attempt == 2 and run.status().state == "running"
    assert run.do("recover", attempt=2).ok


def test_hangup_of_the_supervisor_is_ignored(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    state = read_state(run.layout.supervisor)
    send(state.process, signal.SIGHUP)
    assert run.do("set", set={"lr0": 0.1}).ok
    assert alive(state.process)


@pytest.mark.parametrize("victim", VICTIMS)
def test_chaos(make_run, victim):
    seed = VICTIMS.index(victim)
    chaos(make_run(devices=1 + seed % 2, epochs=100000), random.Random(seed), victim)


def test_stopped_before_it_was_started_is_stopped(make_run):
    run = make_run(start=False)
    assert run.status().state == "starting"
    outcome = run.do("kill")
    assert outcome.ok and "before it was started" in outcome.text
    assert run.status().state == "stopped"


def test_a_full_disk_delays_and_ends_nothing(make_run):
    run = make_run(epochs=100000)
    run.await_state("running")
    whole = run.layout.journal.read_text()
    run.layout.journal.rename(run.layout.home / "kept.jsonl")
    run.layout.journal.mkdir()
    command = Command("set", {"set": {"lr0": 0.002}})
    submit(run.path, command)
    eventually(lambda: "trying again" in run.layout.supervisor_log.read_text())
    assert run.supervisor_alive() and run.members()
    run.layout.journal.rmdir()
    run.layout.journal.write_text(whole)
    eventually(lambda: run.kinds()[-1] == "command_done")


def test_a_supervisor_that_was_taken_over_stops_acting(make_run):
    run = make_run(epochs=100000)
    run.await_state("running")
    document = read_json(run.layout.lock)
    write_json(run.layout.lock, {**document, "token": "somebody else", "host": "gpu7", "boot_id": "other"})
    eventually(lambda: not run.supervisor_alive())
    assert run.members(), "the training itself goes on"
    run.layout.lock.unlink()
    assert run.do("kill").ok


def test_an_attempt_that_was_recorded_but_never_started_is_forgotten(make_run):
    run = make_run(epochs=100000)
    run.await_state("running")
    run.do("kill")
    eventually(lambda: not run.supervisor_alive())
    first = run.layout.attempt(1).read_text()
    run.layout.attempt(2).write_text(first.replace('"attempt": 1', '"attempt": 2'))
    assert run.do("set", set={"lr0": 0.1}).ok
    assert run.layout.attempt_numbers() == [1]
    assert run.kinds().count("attempt_ended") == 1
