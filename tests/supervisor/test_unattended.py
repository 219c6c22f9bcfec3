"""A run with --auto climbs the ladder by itself, and gives up with everything kept."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nantui.cli import main
from nantui.commands.watching import exit_status
from nantui.machine.process_identity import alive
from nantui.machine.process_tree import send
from nantui.run.attempts import read_attempt
from nantui.run.commands import Command, put, spool_for
from nantui.run.spec import read_spec, write_spec
from nantui.supervisor.state import read_state
from nantui.supervisor.status import read_status
from nantui.ui.model.run_reader import RunReader
from nantui.ui.widgets.header import Header
from tests.waiting import eventually


def notes(run):
    return [entry["text"] for entry in run.journal() if entry["kind"] == "note" and entry["by"] == "policy"]


def test_it_recovers_as_the_ladder_says_and_gives_up_at_its_end(make_run):
    run = make_run(auto=True, diverge_at=[1, 3])
    eventually(lambda: any("gave up" in text for text in notes(run)), lambda: str(run.journal()))
    assert notes(run)[0] == "unattended: gentle"
    assert "the ladder is at its end" in notes(run)[-1]
    assert run.kinds().count("attempt_started") == 2
    eventually(lambda: not run.supervisor_alive())
    assert run.status().state == "diverged" and "gave up" in run.status().text


def test_without_auto_nothing_is_done(make_run):
    run = make_run(diverge_at=[1, 3])
    run.await_state("diverged")
    run.await_leave()
    assert notes(run) == [] and run.kinds().count("attempt_started") == 1


def test_a_run_that_a_person_stopped_is_left_alone(make_run):
    run = make_run(auto=True, epochs=100000)
    run.await_state("running")
    assert run.do("kill").ok
    eventually(lambda: not run.supervisor_alive())
    assert notes(run) == []


@pytest.mark.parametrize(
    ("kind", "options", "attempts"),
    [("quarantine", {"images": ["/a.png"]}, 2), ("recover", {"attempt": 0}, 2), ("stop", {}, 1)],
)
def test_what_a_person_asks_for_comes_first_and_if_that_is_refused_it_recovers(
    make_run, kind, options, attempts
):
    run = make_run(auto=True, diverge_at=[1, 3])
    run.await_step()
    supervisor = read_state(run.layout.supervisor)
    assert supervisor is not None
    os.kill(supervisor.process.pid, signal.SIGSTOP)
    eventually(lambda: not alive(supervisor.worker))
    command = Command(kind, options)
    put(spool_for(run.layout), command)
    os.kill(supervisor.process.pid, signal.SIGCONT)
    eventually(lambda: run.outcome_of(command), lambda: str(run.status()))
    waiting = read_state(run.layout.supervisor).waiting
    if kind == "stop" and waiting is not None:  # the next worker, which waits a while
        send(waiting, signal.SIGKILL)
    eventually(lambda: not run.supervisor_alive(), lambda: str(run.status()))
    assert run.kinds().count("attempt_started") == attempts, run.journal()


def test_a_hang_is_ended_with_the_ranks_named_and_taken_up_again(make_run):
    run = make_run(auto=True, hang_at=[1, 4], stacks=True, devices=2, epochs=3)
    ended = eventually(lambda: endings(run), lambda: f"{run.status()} {run.journal()[-3:]}")[0]
    assert (ended["outcome"], ended["cause"]) == ("failed", "hung")
    assert "rank 0 in hang (stub_worker.py:" in ended["evidence"], ended
    assert "rank 1 in hang" in ended["evidence"]
    run.await_state("finished")
    assert run.kinds().count("attempt_started") == 2


def test_without_auto_a_hang_is_said_and_left_alone(make_run):
    run = make_run(hang_at=[1, 4])
    hung = lambda: [one for one in run.journal() if str(one.get("text")).startswith("hung: ")]  # noqa: E731
    eventually(hung, lambda: str(run.journal()))
    assert run.status().state == "stalled" and run.members() and not endings(run)


def test_a_rank_whose_gpu_fails_twice_is_left_out_where_that_was_allowed(make_run):
    words = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    run = make_run(auto=True, recoveries=0, devices=2, epochs=3, last_words=words, start=False)
    spec = read_spec(run.layout.spec)
    write_spec(run.layout.spec, replace(spec, ours={"leave_out_gpu": True}))
    assert run.do("start").ok
    run.await_state("finished")
    attempts = [read_attempt(run.layout, number) for number in run.layout.attempt_numbers()]
    assert [(one.train["device"], one.devices) for one in attempts] == [("0,1", 2), ("0,1", 2), ("0", 1)]
    assert attempts[-1].train["batch"] == 8, "of 16 on two"
    assert "resume without the GPU of rank 1, which keeps failing: device=0, batch=8" in notes(run)[1]
    assert [one["cause"] for one in endings(run)[:2]] == ["cuda_error", "cuda_error"]


def test_healthy_runs_are_left_alone(make_run):
    runs = [
        make_run(f"healthy{n}", auto=True, recoveries=0, epochs=3, devices=1 + n % 2, pace=0.01 * (1 + n))
        for n in range(4)
    ]
    for run in runs:
        run.await_state("finished")
        eventually(lambda run=run: not run.supervisor_alive())
        assert run.kinds().count("attempt_started") == 1 and "note" not in run.kinds(), run.journal()


def test_the_kernels_kill_and_a_persons_are_told_apart(make_run):
    run = make_run(auto=True, recoveries=0, epochs=100000)
    run.await_step()
    os.kill(run.rank_pid(0), signal.SIGKILL)
    run.await_state("failed")
    eventually(lambda: not run.supervisor_alive())
    assert run.status().ending == "killed" and "killed by a person: SIGKILL" in run.status().text
    assert run.kinds().count("attempt_started") == 1 and notes(run) == []


def test_a_supervisor_that_is_told_to_end_stops_its_training_in_order(make_run):
    run = make_run(auto=True, epochs=100000, devices=2)
    run.await_step()
    state = read_state(run.layout.supervisor)
    assert state is not None
    os.kill(state.process.pid, signal.SIGUSR1)
    eventually(lambda: not run.supervisor_alive(), lambda: str(run.status()))
    status = run.status()
    assert (status.state, status.ending) == ("stopped", "preempted") and "SIGUSR1" in status.text
    assert run.layout.stop_point.is_file() and run.members() == []
    assert exit_status(status) == 75 and notes(run) == []


@pytest.mark.parametrize("ranks_too", [True, False])
def test_ranks_stop_in_order_though_the_script_that_waits_for_them_dies_of_the_signal(make_run, ranks_too):
    run = make_run(devices=2, epochs=100000, in_order=True, save_s=2.0, dies_at_once=True)
    run.await_step()
    state = read_state(run.layout.supervisor)
    ranks = [run.rank_pid(rank) for rank in (0, 1)] if ranks_too else []
    for pid in [*ranks, state.worker.pid]:
        os.kill(pid, signal.SIGTERM)
    run.await_state("stopped", "failed")
    status = run.status()
    assert (status.state, status.ending) == ("stopped", "preempted"), status
    assert run.layout.stop_point.is_file() and run.members() == []


def endings(run):
    return [entry for entry in run.journal() if entry["kind"] == "attempt_ended"]


def test_status_diagnosis_header_and_alert_say_the_kind_and_its_evidence(
    make_run, own_home, capsys, monkeypatch
):
    told = own_home / "told"
    command = f'notify: {{command: [sh, -c, \'echo "$0" >> {told}\', "{{text}}"]}}\n'
    with (own_home / "config/nantui/supervise.yaml").open("a") as file:
        file.write(command)
    run = make_run(fail="DataLoader worker (pid 2064) is killed by signal: Killed. ")
    run.await_state("failed")
    words = ("a data loader's worker died", "DataLoader worker (pid 2064) is killed by signal")
    for name in ("status", "diagnose"):
        assert main([name, str(run.path)]) == 0
        said = capsys.readouterr().out
        assert all(word in said for word in words), said
    snapshot = RunReader(run.path, read_status).read()
    monkeypatch.setattr(Header, "cockpit", SimpleNamespace(read_only=False))  # no app runs here
    for cells, seen in ((80, words[:1]), (330, words)):
        header = "".join(text for text, _ in Header()._first(snapshot, cells))
        assert all(word in header for word in seen), header
    eventually(lambda: told.is_file() and all(word in told.read_text() for word in words))
