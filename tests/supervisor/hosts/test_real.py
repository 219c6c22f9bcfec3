"""A real training on two hosts over gloo: the same numbers as on one, a NaN on the second host, where it
listens, stop, rejoin, a cut network, recovery, a killed agent. One run goes through it all: a start costs
imports on two ranks, and the run that it is compared with starts at the same time.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from nantui.machine.process_identity import this_machine
from nantui.run.attempts import read_exits
from nantui.run.telemetry import Step, StepFollower
from nantui.supervisor.client import create_run
from nantui.supervisor.hosts import reports
from tests import waiting
from tests.supervisor.hosts.second import Second, listening
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually
from tests.worker.runs import draw_data_set, tiny_model

pytestmark = pytest.mark.training

PATIENCE = """patience: {tick_s: 0.1, heartbeat_s: 0.5, idle_exit_s: 1, stop_s: 60, host_silent_s: 6,
  host_grace_s: 20, link_s: 3}
"""
COMPARED = 12
WIRE = ("10.213.87.1", "10.213.87.2")


@dataclass
class Network:
    """How the second host is reached: a network of its own where the machine lets us make one."""

    address: str = "127.0.0.1"
    through: tuple[str, ...] = ()
    wire: str = ""


def ip(*words: str) -> bool:
    try:
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    space, wire = f"nantui{os.getpid()}", f"nan{os.getpid() % 100000}"
    peer = ("type", "veth", "peer", "name", "eth0", "netns", space)
    inside = ("netns", "exec", space, "ip")
    made = (
        ip("netns", "add", space)
        and ip("link", "add", wire, *peer)
        and ip("addr", "add", f"{WIRE[0]}/24", "dev", wire)
        and ip("link", "set", wire, "up")
        and ip(*inside, "addr", "add", f"{WIRE[1]}/24", "dev", "eth0")
        and ip(*inside, "link", "set", "eth0", "up")
        and ip(*inside, "link", "set", "lo", "up")
    )
    yield Network(WIRE[0], ("ip", "netns", "exec", space), wire) if made else Network()
    ip("link", "del", wire)
    ip("netns", "del", space)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CONFIG", "CACHE", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(place / name.lower()))
        config = place / "config" / "nantui" / "supervise.yaml"
        config.parent.mkdir(parents=True)
        config.write_text(PATIENCE)
        patch.setenv("NANTUI_HOST", "a")
        this_machine.cache_clear()
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("YOLO_OFFLINE", "true")
        patch.setattr(waiting, "PATIENCE_S", 120.0)
        yield patch
    this_machine.cache_clear()


@pytest.fixture(autouse=True)
def own_home(home: pytest.MonkeyPatch) -> None:
    """The module's home instead of one for each test: both hosts have the same patience."""


@pytest.fixture(scope="module")
def story(
    home: pytest.MonkeyPatch, network: Network, tmp_path_factory: pytest.TempPathFactory, warm_python: str
) -> Iterator[tuple[StubRun, StubRun, Second]]:
    """Start the same training on one host with two ranks, then on two; yields both runs and host b.

    What host b starts dies with its parent: there the stand-in for an interpreter is a real one.
    """
    place = tmp_path_factory.mktemp("two")
    train = {
        "model": str(tiny_model(place)), "data": str(draw_data_set(place / "data")), "epochs": 300,
        "imgsz": 64, "batch": 8, "nbs": 8, "plots": False, "workers": 0, "seed": 0,
        "optimizer": "SGD", "lr0": 0.001, "warmup_epochs": 0.0, "mosaic": 0.0, "save_period": 1,
        "project": str(place / "runs"),
    }  # fmt: skip
    fault = [{"fault": "nan_pixel", "rank": 1, "epoch": 2, "batch": 2}]
    alone = StubRun(
        create_run({**train, "device": "cpu,cpu", "name": "one"}, faults=fault, python=warm_python)
    )
    train = {**train, "device": "cpu", "name": "two"}
    run = StubRun(create_run(train, faults=fault, nnodes=2, endpoint=network.address, python=warm_python))
    second = Second(run.path, through=network.through)
    yield alone, run, second
    for one in (alone, run):
        one.do("kill")
    run.do("stop")
    second.clean_up()


def steps(run: StubRun, attempt: int = 1) -> list[Step]:
    return StepFollower(run.layout.steps(attempt)).read()[0]


def stepping(run: StubRun, attempt: int, count: int = 1) -> None:
    eventually(lambda: len(steps(run, attempt)) > count, lambda: f"{run.status()}")


def numbers(step: Step) -> tuple[object, ...]:
    return step.epoch, step.step, tuple(step.losses.items()), str(step.value("grad_norm")), step.skipped


def test_one_run_on_two_hosts_from_its_start_to_a_killed_agent(story, network):
    """The wire is cut where a test may make networks (as root); elsewhere test_control cuts a forwarder."""
    alone, run, second = story
    _two_hosts_train_as_two_ranks_on_one_and_catch_a_nan_on_the_second(alone, run, second)
    _the_ranks_listen_on_the_way_to_the_endpoint_only(run, second, network)
    _a_stop_is_taken_by_both_hosts_at_one_step_and_the_second_joins_again_by_itself(run, second)
    if network.wire:
        _a_cut_network_ends_both(run, second, network)
    else:
        assert run.do("kill").ok
    _a_recovery_takes_both_along_and_a_killed_agent_leaves_nothing_on_either(run, second)


def _two_hosts_train_as_two_ranks_on_one_and_catch_a_nan_on_the_second(
    alone: StubRun, run: StubRun, second: Second
) -> None:
    eventually(lambda: "waiting for 1 of 2 hosts" in run.status().text, lambda: str(run.status()))
    answer = second.join()
    assert answer.returncode == 0, answer.stderr
    stepping(alone, 1, COMPARED)
    assert alone.do("kill").ok
    stepping(run, 1, COMPARED)
    mine, theirs = steps(run)[:COMPARED], steps(alone)[:COMPARED]
    assert [numbers(step) for step in mine] == [numbers(step) for step in theirs]
    incidents = [entry for entry in run.journal() if entry["kind"] == "incident"]
    assert [(entry["epoch"], entry["step"], entry["action"]) for entry in incidents] == [(2, 2, "skipped")]
    assert incidents[0]["hosts"] == ["b"] and incidents[0]["evidence"]["ranks"] == [1]
    effect = next(entry for entry in run.journal() if entry["kind"] == "in_effect")["values"]
    assert effect["batch"] == 8 and effect["world_size"] == 2


def _the_ranks_listen_on_the_way_to_the_endpoint_only(run: StubRun, second: Second, network: Network) -> None:
    own = {address for ref in run.members() for address in listening(ref.pid)}
    theirs = {address for ref in second.members() for address in listening(ref.pid)}
    assert own == {network.address}, "the store of the rendezvous, and gloo"
    assert theirs == {WIRE[1] if network.wire else network.address}, "gloo"


def _a_stop_is_taken_by_both_hosts_at_one_step_and_the_second_joins_again_by_itself(
    run: StubRun, second: Second
) -> None:
    outcome = run.do("stop")
    assert outcome.ok, outcome.text
    exits = read_exits(run.layout, 1)
    assert [one.outcome for one in exits] == ["stopped", "stopped"]
    assert (exits[0].epoch, exits[0].step) == (exits[1].epoch, exits[1].step)
    assert run.members() == [] and second.members() == [] and second.agent_alive()
    assert run.do("resume").ok
    stepping(run, 2)
    assert {host.host: host.ranks for host in run.status().hosts} == {"a": (0,), "b": (1,)}


def _a_cut_network_ends_both(run: StubRun, second: Second, network: Network) -> None:
    ip("link", "set", network.wire, "down")
    run.await_state("failed")
    eventually(lambda: second.members() == [])
    # Either host may be the first to notice.
    assert re.match(
        "another host was lost: host b: (no connection to|.*the connection was cut)", run.status().text
    )
    assert run.members() == [] and second.agent_alive()
    eventually(lambda: second.report.state == reports.ENDED)
    ip("link", "set", network.wire, "up")


def _a_recovery_takes_both_along_and_a_killed_agent_leaves_nothing_on_either(
    run: StubRun, second: Second
) -> None:
    assert run.do("recover").ok
    eventually(lambda: (second.report.attempt, second.report.state) == (3, reports.TRAINING))
    eventually(lambda: len(second.members()) > 1, lambda: str(second.members()))
    told = run.layout.events(3, 1)
    # From then on the rank answers to signals itself.
    eventually(lambda: told.exists() and '"phase": "setup"' in told.read_text(), lambda: str(run.status()))
    second.kill_agent()
    run.await_state("failed")
    assert "host b has left: its agent" in run.status().text
    eventually(lambda: second.members() == [])
    assert run.members() == []
