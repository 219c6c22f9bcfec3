"""Ranks that hang say which collective they are in; native stacks are added where py-spy is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from nantui.machine.process_identity import ref_of
from nantui.run.attempts import Attempt
from nantui.run.layout import RunLayout
from nantui.supervisor import stacks
from nantui.supervisor.stacks import collect_stacks, hung_text
from nantui.worker.signals import collective_text
from tests.waiting import eventually

RANK = """
import os, sys, time
from types import SimpleNamespace
import torch
import torch.distributed as dist
from nantui.worker.signals import listening

rank = int(os.environ["RANK"])


def train():
    for _ in range(3):
        dist.all_reduce(torch.ones(4))
    os.write(1, f"ready {rank} {os.getpid()}\\n".encode())
    while rank:
        time.sleep(1)
    dist.all_reduce(torch.ones(4))  # LINE


with listening(SimpleNamespace()):
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
    train()
"""
LINE = next(at for at, line in enumerate(RANK.splitlines(), 1) if "# LINE" in line)
ATTEMPT = Attempt(1, "u", 0.0, "start", None, {}, {}, sys.executable, devices=2)
SPIED = """\
Process 7: python train.py
Python v3.11.7 (/usr/bin/python3.11)

Thread 9 (idle): "pt_autograd_0"
    poll (libother.so)
Thread 7 (idle): "MainThread"
    0x7f4aaae4524a (libc.so.6)
    std::condition_variable::wait (libstdc++.so.6.0.30)
    gloo::transport::tcp::UnboundBuffer::waitRecv (libtorch_cpu.so)
    all_reduce (torch/distributed/distributed_c10d.py:4181)
"""


@pytest.fixture
def hanging(tmp_path, torch_python):
    """Two ranks of which one waits for ever in an all_reduce that the other does not join."""
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    (tmp_path / "script.py").write_text(RANK)
    with layout.attempt_log(1).open("ab") as log:
        ranks = [
            subprocess.Popen(
                [torch_python, str(tmp_path / "script.py"), str(tmp_path / "store")],
                env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
                stdout=log,
                stderr=log,
            )
            for rank in range(2)
        ]
    try:
        pids = dict(eventually(lambda: len(there := ready(layout)) == 2 and there))
        found = [ref for rank in "01" if (ref := ref_of(int(pids[rank])))]
        for rank, ref in enumerate(found):
            register(layout, rank, ref)
        yield layout, found
    finally:
        for child in ranks:
            child.kill()
            child.wait()


def ready(layout):
    """Return (rank, pid) of each that is there, as it says."""
    return re.findall(r"^ready (\d) (\d+)$", layout.attempt_log(1).read_text(), re.MULTILINE)


def register(layout, rank, ref):
    event = {"t": 0.0, "kind": "registered", "rank": rank, "pid": ref.pid, "created": ref.created}
    layout.events(1, rank).write_text(json.dumps({**event, "host": "", "boot_id": "", "uuid": "u"}) + "\n")


def test_ranks_that_hang_name_their_collectives_and_lines(hanging, tmp_path, monkeypatch):
    layout, found = hanging
    spy = tmp_path / "py-spy"
    spy.write_text(f"#!/bin/sh\ncat <<'END'\n{SPIED}END\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(stacks, "COLLECTIVE_S", 60.0)
    text = hung_text(300.0, collect_stacks(found, layout, ATTEMPT, before_the_end=True))
    assert f"gloo:all_reduce 4 of default_pg from script.py:{LINE} not finished (rank 0)" in text
    assert "rank 1 did not enter gloo:all_reduce 4 of default_pg, " in text
    assert "gloo:all_reduce 3 of default_pg from script.py:" in text and "finished (rank 1)" in text
    assert "rank 0 in all_reduce (distributed_c10d.py:" in text and "rank 1 in train (script.py:" in text
    assert "natively in gloo::transport::tcp::UnboundBuffer::waitRecv (libtorch_cpu.so)" in text
    monkeypatch.setattr(stacks, "COLLECTIVE_S", 0.5)
    spy.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(stacks, "NATIVE_S", 0.5)
    again = collect_stacks(found, layout, ATTEMPT, before_the_end=True)
    assert "native" not in again[0] and again[0]["collective"]
    assert not {"native", "collective"} & {*collect_stacks(found, layout, ATTEMPT)[0]}, "it may go on"


def entry(number, retired, **more):
    return {
        "time_created_ns": number,
        "retired": retired,
        "profiling_name": "nccl:all_reduce",
        "collective_seq_id": number,
        "process_group": ("0", "default_pg"),
        **more,
    }


def test_the_first_after_the_last_finished_one_of_its_group_is_named():
    forgotten = [entry(1, False), entry(2, True), entry(4, False), entry(3, False)]
    assert collective_text(forgotten) == "nccl:all_reduce 3 of default_pg not finished"
    assert collective_text([entry(1, True)]) == "nccl:all_reduce 1 of default_pg finished"
    others = [entry(5, True, process_group=("1", "side")), entry(6, False, process_group=("1", "side"))]
    assert collective_text([*forgotten, *others]) == "nccl:all_reduce 3 of default_pg not finished"
    sent = entry(2, False, is_p2p=True, p2p_seq_id=7, frames=[{"filename": "/a/torch/x.py", "line": 1}])
    assert collective_text([entry(1, True), sent]) == "nccl:all_reduce 7 of default_pg not finished"
    with pytest.raises(IndexError):
        collective_text([])


def test_an_early_one_that_nobody_has_retired_is_not_the_one_that_ranks_hang_in():
    early = entry(1, False, state="scheduled", profiling_name="nccl:broadcast")
    asked = [early, *(entry(at, False, state="completed") for at in range(2, 9))]
    assert collective_text(asked) == "nccl:all_reduce 8 of default_pg finished"
    hanging = [*asked, entry(9, False, state="started"), entry(10, False, state="scheduled")]
    assert collective_text(hanging) == "nccl:all_reduce 9 of default_pg not finished"
    # A recorder that marks nothing tells only how far each rank has come.
    silent = [{**one, "state": "scheduled"} for one in hanging]
    texts = [collective_text(silent), collective_text(silent[:8])]
    assert texts[0] == "nccl:all_reduce 10 of default_pg not seen to be finished"
    looks = [{"rank": rank, "state": "S", "stack": [], "collective": text} for rank, text in enumerate(texts)]
    assert "rank 1 did not enter nccl:all_reduce 10 of default_pg, " in hung_text(300.0, looks)
