"""The small parts: where ranks meet, whose silence counts, whom to blame, whose turn it is."""

from __future__ import annotations

import argparse
import os
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from nantui.cli import parser_of
from nantui.commands import starting
from nantui.errors import UserError
from nantui.labels.data_set_digest import facts
from nantui.machine.gpus import Gpu, Host, Sample
from nantui.machine.process_identity import (
    Machine,
    boot_id,
    host_id,
    host_name,
    ref_of,
    this_machine,
    this_process,
)
from nantui.run.attempts import RankExit, write_exit
from nantui.run.endings import Traces
from nantui.run.layout import RunLayout
from nantui.supervisor.attempt_watch import Silence
from nantui.supervisor.hosts import consistency
from nantui.supervisor.hosts.endpoint import Link, interface_towards, open_endpoint, reach, split
from nantui.supervisor.hosts.leader import blame
from nantui.supervisor.hosts.reports import LEFT, TRAINING, Report, Roster, Seat, write_report
from nantui.supervisor.outcome import ending_of
from nantui.supervisor.state import SupervisorState
from tests.waiting import eventually
from tests.worker.runs import draw_data_set

ROSTER = Roster(1, "u", (Seat("a", 0, 2), Seat("b", 1, 1)))


def test_a_played_host_is_another_one_for_names_and_boots(monkeypatch):
    monkeypatch.delenv("NANTUI_HOST", raising=False)
    own = host_name(), boot_id()
    assert own[0] == socket.gethostname()
    monkeypatch.setenv("NANTUI_HOST", "rack 1/b")
    assert host_name() == "rack 1/b" and host_id() == "rack_1_b" and boot_id() != own[1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.1:29400", ("10.0.0.1", 29400)),
        ("a.lab", ("a.lab", 0)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 0)),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text, found):
    assert split(text) == found


def test_an_endpoint_that_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="HOST:PORT"):
        split("a:b")
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.77:29400"):
        open_endpoint("192.0.2.77:29400")


def test_an_endpoint_is_one_address_where_something_can_listen():
    open_endpoint("127.0.0.1")[0].close()
    for every in ("0.0.0.0:29400", "[::]:29400"):
        with pytest.raises(UserError, match="every address"):
            open_endpoint(every)


def test_where_nothing_can_listen_nothing_is_made(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(starting, "create_run", lambda *args, **how: made.append(args))
    words = ["model=yolov8n.yaml", "data=shapes.yaml", "batch=4", "device=cpu", "nnodes=2"]
    with pytest.raises(UserError, match="cannot listen"):
        starting.make_run(parser_of("train").parse_args([*words, "endpoint=192.0.2.77:29400"]))
    assert made == []


@pytest.mark.parametrize(
    ("off", "said"), [(1.0, ""), (9.0, r"\+9 s off that of a"), (-9.0, r"-9 s off that of a")]
)
def test_clocks_are_compared_at_the_next_heartbeat(monkeypatch, off, said):
    machine, own = Machine("a", "boot", "space"), ref_of(os.getpid())
    beats = iter([100.0, 100.0, 104.0])
    monkeypatch.setattr(consistency, "read_state", lambda path: SupervisorState(own, machine, next(beats)))
    found = consistency.clock(Path("supervisor.json"), now=lambda: 104.0 + off)
    assert re.search(said, found) if said else found == ""


def test_a_leader_that_is_not_heard_of_is_named(monkeypatch):
    monkeypatch.setattr(consistency, "read_state", lambda path: None)
    assert "has not been heard of" in consistency.clock(Path("supervisor.json"), wait_s=0.0)


def test_it_listens_on_the_asked_address_only_and_a_cut_is_noticed():
    listener, endpoint = open_endpoint("127.0.0.1")
    host, port = split(endpoint)
    assert listener.getsockname() == (host, port) and reach(endpoint) == ""
    assert "refused" in reach(f"127.0.0.2:{port}")
    assert interface_towards(endpoint) == "lo"
    link = Link(endpoint, 0.02)
    listener.close()
    eventually(lambda: link.down_s() > 0.05)
    assert "refused" in reach(endpoint)
    link.close()


def test_silence_counts_only_while_one_is_awake_oneself():
    now = [0.0]
    silence = Silence(lambda: now[0])
    assert silence.quiet_s("b", 5.0) == 0.0
    for _ in range(10):
        now[0] += 0.5
        silence.quiet_s("b", 5.0)
    assert silence.quiet_s("b", 5.0) == 5.0
    now[0] += 3600  # suspended, or a file server was away
    assert silence.quiet_s("b", 5.0) == 6.0
    assert silence.quiet_s("b", 4.0) == 0.0, "another heartbeat, whatever its clock"


def ended(layout: RunLayout, rank: int, text: str) -> None:
    write_exit(layout, 1, RankExit("failed", rank, 1, 1, 0.0, text=text))


def test_the_host_that_broke_is_named_and_not_those_that_lost_it(tmp_path: Path):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    for rank in (0, 1):
        ended(layout, rank, "RuntimeError: [gloo] Connection closed by peer [10.0.0.2]")
    assert "host b: rank 2 ended without a word" in blame(layout, ROSTER)
    (layout.hosts / "b").mkdir(parents=True)
    report = Report("b", this_process(), this_machine(), text="its agent, process 9, ended without a word")
    write_report(layout, replace(report, state=TRAINING))
    assert "ended without a word, or the connection was cut" in blame(layout, ROSTER)
    write_report(layout, replace(report, state=LEFT))
    assert blame(layout, ROSTER) == "host b has left: its agent, process 9, ended without a word"
    ended(layout, 2, "OSError: data set is gone")
    assert blame(layout, ROSTER) == "host b, rank 2: OSError: data set is gone"
    ended(layout, 0, "OSError: No space left on device")
    assert blame(layout, ROSTER) == ""


def test_a_kill_that_was_asked_for_is_no_failure(tmp_path: Path):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    ended(layout, 1, "RuntimeError: [gloo] Connection reset by peer [10.0.0.1]")
    assert ending_of(layout, 1).outcome == "failed"
    killed = ending_of(layout, 1, Traces(killed_by="me@a"))
    assert (killed.outcome, killed.text) == ("stopped", "killed by me@a")
    ended(layout, 0, "OSError: No space left on device")
    assert ending_of(layout, 1, Traces(killed_by="me@a")).text == "OSError: No space left on device"


def test_the_same_images_have_the_same_digest_and_a_missing_one_another(tmp_path: Path):
    one, two = draw_data_set(tmp_path / "one", 4), draw_data_set(tmp_path / "two", 4)
    assert facts(str(one))["images"] == facts(str(two))["images"]
    assert facts(str(one))["images"]["train"]["count"] == 4
    (tmp_path / "two" / "images" / "train" / "000.png").rename(
        tmp_path / "two" / "images" / "train" / "x.png"
    )
    mine, theirs = (facts(str(data))["images"]["train"] for data in (one, two))
    assert mine["count"] == theirs["count"] and mine["digest"] != theirs["digest"]
    assert "no such file" in facts(str(tmp_path / "none.yaml"))["error"]


def test_hosts_and_endpoint_are_no_settings_of_the_training():
    arguments = argparse.Namespace(settings=["nnodes=2", "lr0=0.1", "endpoint=h:1"], nnodes=1, endpoint="")
    assert starting.take_hosts(arguments) == ["lr0=0.1"]
    assert (arguments.nnodes, arguments.endpoint) == (2, "h:1")
    with pytest.raises(UserError, match="number of hosts"):
        starting.take_hosts(argparse.Namespace(settings=["nnodes=0"], nnodes=1, endpoint=""))
    with pytest.raises(UserError, match="all ranks together"):
        starting.refuse_alone({"batch": -1}, {})


def test_rank_0_goes_first_then_each_hosts_first_rank_then_everybody(monkeypatch):
    from nantui.worker import distributed
    from nantui.worker.distributed import _in_turn

    here = threading.local()
    meeting, order, guard = threading.Barrier(4), [], threading.Lock()
    monkeypatch.setattr(distributed, "barrier", meeting.wait)
    monkeypatch.setattr(distributed, "rank", lambda: here.rank)

    def work(rank: int) -> None:
        here.rank = rank
        with _in_turn(rank % 2), guard:
            order.append(rank)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert order[:2] == [0, 2] and sorted(order[2:]) == [1, 3]


def test_the_panel_shows_the_gpus_of_the_other_hosts(monkeypatch):
    from nantui.ui.glyphs import UNICODE
    from nantui.ui.widgets.hardware import HardwarePanel

    monkeypatch.setattr(HardwarePanel, "glyphs", UNICODE)
    gpu = Gpu(0, "H", 80.0, 40.0, 50.0, 60.0, 300.0, 700.0, ())
    host = Host(10.0, 8, 1.0, 100.0, 50.0, 1.0, 0.1, 1000.0, 500.0, 0.0)
    other = Sample(0.0, (gpu, gpu), host)
    panel = HardwarePanel()
    panel.sample = Sample(0.0, (gpu,), host, elsewhere=(("b", other),))
    lines = ["".join(text for text, _ in line) for line in panel.build(60, 20)]
    assert sum("GPU" in line and "GB" in line for line in lines) == 3
    assert any("host b" in line for line in lines)
