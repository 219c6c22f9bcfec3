"""A run with --auto climbs the ladder by itself, and gives up with everything kept."""

from __future__ import annotations

from tests.supervisor.stub_run import eventually


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
    eventually(lambda: not run.supervisor_alive())
    assert notes(run) == [] and run.kinds().count("attempt_started") == 1


def test_a_run_that_a_person_stopped_is_left_alone(make_run):
    run = make_run(auto=True, epochs=100000)
    run.await_state("running")
    assert run.do("kill").ok
    eventually(lambda: not run.supervisor_alive())
    assert notes(run) == []
