"""Two hosts, played by the stub worker: who waits, who joins, what a lost host does to the others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading

import pytest

from nantui.commands.join import led_from_now
from nantui.machine.process_identity import this_machine
from nantui.machine.process_tree import send
from nantui.run.atomic_files import read_own_json
from nantui.run.attempts import read_exits
from nantui.supervisor.client import create_run
from nantui.supervisor.hosts import reports
from tests.supervisor.hosts.second import Second
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually

QUICK = """patience: {tick_s: 0.1, heartbeat_s: 0.3, idle_exit_s: 0.5, stop_s: 3, teardown_s: 1,
  terminate_s: 0.5, stall_floor_s: 5, other_phase_s: 30, host_silent_s: 2, host_grace_s: 3,
  link_s: 1.5, rejoin_silent_s: 20}
"""


@pytest.fixture
def two(tmp_path, stub_python, own_home, monkeypatch):
    """Return a maker of (run led by host a, host b), all processes gone afterwards."""
    (own_home / "config" / "nantui" / "supervise.yaml").write_text(QUICK)
    monkeypatch.setenv("NANTUI_HOST", "a")
    this_machine.cache_clear()
    made = []

    def make(endpoint: str = "127.0.0.1:0", auto: bool = False, **how) -> tuple[StubRun, Second]:
        train = {
            "project": str(tmp_path / "runs"), "name": f"two{len(made)}", "epochs": 500, "device": "cpu",
            "stub": how,
        }  # fmt: skip
        run = StubRun(create_run(train, python=stub_python, nnodes=2, endpoint=endpoint, auto=auto))
        made.append((run, Second(run.path)))
        return made[-1]

    yield make
    for run, second in made:
        run.do("kill")
        run.do("stop")
        run.kill_supervisor() if run.supervisor_alive() else None
        second.clean_up()
    monkeypatch.delenv("NANTUI_HOST")
    this_machine.cache_clear()


def joined(run: StubRun, second: Second) -> None:
    """Join, and wait until both hosts step."""
    answer = second.join()
    assert answer.returncode == 0, answer.stderr
    run.await_state("running")
    eventually(lambda: second.report.state == reports.TRAINING, lambda: str(second.report))


def test_it_waits_for_the_second_host_and_then_trains_on_both(two):
    run, second = two()
    eventually(lambda: "waiting for 1 of 2 hosts" in run.status().text, lambda: str(run.status()))
    assert run.status().state == "starting" and run.members() == []
    joined(run, second)
    hosts = {host.host: host for host in run.status().hosts}
    assert hosts["a"].ranks == (0,) and hosts["b"].ranks == (1,)
    assert run.members() and second.members()
    assert {ref.pid for ref in run.members()}.isdisjoint(ref.pid for ref in second.members())
    again = second.join()
    assert again.returncode == 3 and "takes part for host b already" in again.stderr
    # An agreed stop ends both; the second joins the next attempt by itself; then it is sent home.
    outcome = run.do("stop")
    assert outcome.ok, outcome.text
    assert run.members() == [] and second.members() == [] and second.agent_alive()
    assert run.do("resume").ok
    eventually(lambda: run.status().attempt == 2 and run.status().state == "running")
    eventually(lambda: second.report.attempt == 2 and second.report.state == reports.TRAINING)
    assert run.do("kill").ok
    assert second.members() == []
    assert "sent home" in run.do("stop").text
    eventually(lambda: not second.agent_alive() and not run.supervisor_alive())


def test_a_difference_is_named_before_anything_starts(two):
    run, second = two()
    eventually(lambda: "waiting" in run.status().text)
    second = Second(run.path, STUB_TORCH="1.0")
    answer = second.join("device=0")
    assert answer.returncode == 3
    assert "torch is 1.0 here and 2 on the leading host" in answer.stderr
    assert "do not mix" in answer.stderr and "nothing was started" in answer.stderr
    assert not (run.layout.hosts / "b").exists()
    assert "lr0" in second.join("lr0=1").stderr
    answer = Second(run.path, name="a").join()
    assert answer.returncode == 3 and "host a leads this run" in answer.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_files_of_another_owner_are_not_believed(two):
    run, second = two()
    eventually(lambda: "waiting" in run.status().text)
    os.chown(run.layout.attempt(1), 12345, 12345)
    answer = second.join()
    assert answer.returncode == 3 and "belongs to user 12345" in answer.stderr
    report = run.layout.hosts / "c" / "agent.json"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    os.chown(report, 12345, 12345)
    assert read_own_json(report) is None and reports.read_reports(run.layout) == []


def test_a_killed_agent_takes_its_ranks_along_and_ends_the_run_with_the_reason(two):
    run, second = two()
    joined(run, second)
    pid = second.report.process.pid
    second.kill_agent()
    eventually(lambda: second.members() == [])
    run.await_state("failed")
    assert f"host b has left: its agent, process {pid}, ended without a word" in run.status().text
    assert run.members() == []
    # Who joins again takes part in the next attempt.
    assert run.do("resume").ok
    eventually(lambda: "waiting for 1 of 2 hosts" in run.status().text)
    joined(run, second)


def test_a_rank_elsewhere_that_fails_by_itself_tells_why_where_nobody_here_hears_of_it(two):
    run, second = two(last_words="OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    exit_file = second.layout.hosts / "b" / "001.exit.json"
    exit_file.mkdir(parents=True)  # it cannot be written, and the agent stays
    assert second.join().returncode == 0
    status = run.await_state("failed")
    assert status.ending == "cuda_oom" and "host b, rank 1: OutOfMemoryError" in status.text
    assert exit_file.is_dir() and second.agent_alive()


def test_what_outlives_a_killed_agent_of_its_attempt_is_ended_and_nothing_else(two):
    run, second = two()
    joined(run, second)
    marks = (f"b@{second.report.uuid}", f"a@{second.report.uuid}", "b@another", "")
    started = [subprocess.Popen(["sleep", "600"], env={**os.environ, "NANTUI_ATTEMPT": one}) for one in marks]
    try:
        second.kill_agent()
        eventually(lambda: started[0].poll() is not None)
        assert run.layout.host_end_request(1, "b").exists(), "a rank is told that this is meant"
        eventually(lambda: second.report.state == "left" and second.members() == [])
        assert [one.poll() for one in started[1:]] == [None, None, None]
    finally:
        for one in started:
            one.kill()
            one.wait()


def test_an_agent_that_dies_with_its_witness_is_found_silent(two):
    run, second = two()
    joined(run, second)
    second.kill_witness()
    second.kill_agent()
    run.await_state("failed")
    assert "host b has been silent" in run.status().text


def test_an_agent_that_is_paused_is_named_and_nothing_is_ended(two, own_home):
    patience = QUICK.replace("host_silent_s: 2", "host_silent_s: 40")
    (own_home / "config" / "nantui" / "supervise.yaml").write_text(patience)
    run, second = two()
    joined(run, second)
    assert send(second.report.process, signal.SIGSTOP)
    eventually(lambda: "nothing heard of host b" in run.status().text, lambda: str(run.status()))
    assert run.status().state == "running" and second.members()
    assert send(second.report.process, signal.SIGCONT)
    eventually(lambda: run.status().text == "", lambda: str(run.status()))
    assert run.status().state == "running" and run.status().attempt == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_an_agent_that_is_told_to_leave_asks_for_the_agreed_stop_and_lets_the_leader_save(two, number):
    run, second = two(in_order=True, save_s=1.5)
    joined(run, second)
    eventually(lambda: len(second.members()) == 4, lambda: str(second.members()))  # two loaders: it listens
    assert send(second.report.process, number)
    status = run.await_state("stopped", "failed")
    assert (status.state, status.ending) == ("stopped", "preempted"), status
    exits = {one.rank: one for one in read_exits(run.layout, 1)}
    assert [exits[rank].outcome for rank in (0, 1)] == ["stopped", "stopped"]
    assert exits[1].signal == "SIGTERM" and run.layout.stop_point.is_file()
    eventually(lambda: not second.agent_alive() and second.members() == [] and run.members() == [])
    assert second.report.state == reports.LEFT


def test_a_join_that_waits_takes_no_dead_leader_for_one(two):
    run, second = two()
    eventually(lambda: "waiting" in run.status().text)
    run.kill_supervisor()
    led = led_from_now(run.path)
    assert run.layout.lock.exists() and not led()
    assert run.do("set", set={"lr0": 0.001}).ok
    eventually(led, lambda: str(run.status()))


def test_a_cut_connection_ends_both(two):
    with Forwarder() as forwarder:
        run, second = two()
        eventually(lambda: "waiting" in run.status().text)
        endpoint = forwarder.towards(run)
        joined(run, second)
        assert second.report.uuid and endpoint
        forwarder.cut()
        run.await_state("failed")
    assert "no connection to" in run.status().text and "host b" in run.status().text
    eventually(lambda: second.members() == [])
    assert run.members() == [] and second.agent_alive()


def test_a_supervisor_killed_while_it_waits_goes_on_waiting(two):
    run, second = two()
    eventually(lambda: "waiting" in run.status().text)
    run.kill_supervisor()
    assert run.do("set", set={"lr0": 0.001}).ok
    assert run.status().state == "starting"
    joined(run, second)


class Forwarder:
    """Stands between the second host and the endpoint, so that a test can cut the connection."""

    def __enter__(self) -> Forwarder:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open = True
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()

    def towards(self, run: StubRun) -> str:
        """Put this in the place of the attempt's endpoint, as the second host reads it."""
        from dataclasses import replace

        from nantui.run.attempts import read_attempt, write_attempt

        attempt = read_attempt(run.layout, 1)
        assert attempt is not None
        write_attempt(run.layout, replace(attempt, endpoint=f"127.0.0.1:{self._server.getsockname()[1]}"))
        return attempt.endpoint

    def cut(self) -> None:
        self._open = False
        self._server.close()

    def _run(self) -> None:
        while self._open:
            try:
                self._server.accept()[0].close()
            except OSError:
                return
