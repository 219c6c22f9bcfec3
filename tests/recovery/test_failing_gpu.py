"""A GPU that two ends name is left out where that was allowed: who is named, and the batch without it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

import pytest

from nantui.recovery.unattended_policy import NEARLY, RECOVER, RESUME, Decision, decide, failing_gpu, on_fewer
from nantui.run.attempts import RankExit, read_attempt, write_attempt, write_exit
from nantui.run.points import StepPoint, write_header
from nantui.run.record import RunRecord
from nantui.run.spec import Spec, read_spec, write_spec
from tests.recovery.test_ladder import Tale, tale  # noqa: F401

FIRST, SECOND = "0000:af:00", "0000:3b:00"
"""In the order of the ranks, which is not that of the bus."""
ECC = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
LOST = "DistBackendError: NCCL error: remote process exited or there was a network error"
XID = f"GPU {SECOND}: Xid 79, pid='?', name=?, GPU has fallen off the bus.; {LOST}"
WATCHDOG = "[rank1]:[E321 02:07:08 ProcessGroupNCCL.cpp:1895] Process group watchdog thread terminated with"
TIMED_OUT = "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE)"


def train_on(tale: Tale, device: str, allowed: bool = True) -> None:  # noqa: F811
    spec = read_spec(tale.layout.spec)
    assert spec is not None
    write_spec(
        tale.layout.spec,
        replace(spec, train={**spec.train, "device": device}, ours={"leave_out_gpu": allowed}),
    )
    text = tale.layout.args_yaml.read_text().replace("device: cpu", f"device: '{device}'")
    tale.layout.args_yaml.write_text(text)


def end(
    tale: Tale, cause: str = "cuda_error", evidence: str = ECC, *,  # noqa: F811
    exits: dict[int, str] | None = None, log: str = "", epoch: int = 7, devices: int = 2, **fields: Any,
) -> None:  # fmt: skip
    """An attempt on two GPUs ends; `exits` are its ranks' last words."""
    tale.attempt("failed", epoch, cause=cause, evidence=evidence)
    attempt = read_attempt(tale.layout, tale.number)
    assert attempt is not None
    marks = {"gpus": {FIRST: 0, SECOND: None}, "kernel_s": 1.0}
    write_attempt(tale.layout, replace(attempt, **{"devices": devices, "marks": marks, **fields}))
    for rank, text in (exits or {}).items():
        write_exit(tale.layout, tale.number, RankExit("failed", rank, 1, 1, 0.0, epoch=epoch, text=text))
    tale.layout.attempt_log(tale.number).write_text(log)


def test_the_gpu_that_the_second_end_names_again_is_left_out_and_the_step_stays(tale: Tale) -> None:  # noqa: F811
    train_on(tale, "2,0")
    end(tale, evidence=XID)
    assert decide(tale.layout.run).options == {"to": "epoch5.pt", "presets": []}, "once is not enough"
    end(tale, evidence=XID)
    decision = decide(tale.layout.run)
    assert decision.action == RECOVER and decision.options["to"] == "epoch5.pt"
    assert decision.options["set"] == {"device": "2", "batch": 16}, (
        "a step is of 4 times 16 images, not 2 times 32"
    )
    assert f"resume without GPU {SECOND}, which keeps failing: device=2, batch=16" in decision.why


def test_it_is_not_left_out_where_nobody_allowed_it_or_no_other_is_left(tale: Tale) -> None:  # noqa: F811
    train_on(tale, "0,1", allowed=False)
    end(tale, evidence=XID)
    end(tale, evidence=XID)
    decision = decide(tale.layout.run)
    assert (
        "set" not in decision.options and f"leave_out_gpu=True would leave out GPU {SECOND}" in decision.why
    )
    train_on(tale, "0")
    for _ in range(2):
        end(tale, "hung", f"GPU {FIRST}: Xid 79", devices=1, marks={"gpus": {FIRST: 0}})
    decision = decide(tale.layout.run)
    assert (
        decision.action == RECOVER
        and "set" not in decision.options
        and f"there is no other than GPU {FIRST}" in decision.why
    )


@pytest.mark.parametrize(
    ("place", "how"),
    [
        (1, {"evidence": XID}),
        (0, {"evidence": f"GPU {FIRST}: 3 more uncorrectable ECC errors; {LOST}", "cause": "hung"}),
        (1, {"exits": {1: ECC}}),
        (1, {"exits": {0: LOST, 1: ECC}, "marks": {}}),
        (1, {"exits": {0: LOST}, "log": f"{WATCHDOG} exception: CUDA error: unspecified launch failure\n"}),
        (0, {"cause": "collective", "exits": {0: "DistBackendError: NCCL error: unhandled cuda error"}}),
        (None, {"exits": {0: ECC, 1: ECC}}),
        (None, {"exits": {1: "RuntimeError: CUDA error: device-side assert triggered"}}),
        (None, {"cause": "collective", "evidence": LOST, "exits": {0: LOST}, "log": TIMED_OUT}),
        (None, {"evidence": "the driver no longer answers: nothing for 5 s"}),
        (None, {"cause": "exception", "evidence": "ValueError: x", "exits": {1: ECC}}),
        (None, {"exits": {1: ECC}, "nnodes": 2}),
        (None, {"exits": {1: ECC}, "devices": 4}),
    ],
)  # fmt: skip
def test_who_is_named(tale: Tale, place: int | None, how: dict[str, Any]) -> None:  # noqa: F811
    end(tale, **how)
    end(tale, **how)
    found = failing_gpu(RunRecord(tale.layout), 2)
    assert (found and found[0]) == place
    if found and how.get("marks") is None:
        assert found[1] == f"GPU {(FIRST, SECOND)[found[0]]}"


def test_one_that_is_gone_is_left_out_at_once(tale: Tale) -> None:  # noqa: F811
    train_on(tale, "0,1")
    end(tale, evidence=f"GPU {FIRST} is gone from the bus; {LOST}")
    assert decide(tale.layout.run).options["set"] == {"device": "1", "batch": 16}, "nothing resumes on it"


def test_two_gpus_named_once_each_and_what_a_person_began_anew_count_as_once(tale: Tale) -> None:  # noqa: F811
    end(tale, exits={0: ECC})
    end(tale, exits={1: ECC})
    assert failing_gpu(RunRecord(tale.layout), 2) is None
    end(tale, exits={0: ECC}, epoch=9)
    found = failing_gpu(RunRecord(tale.layout), 2)
    assert found is not None and found[0] == 0, "an epoch gained meanwhile does not heal it"
    tale.journal.append("command", by="jo@station", command={"id": "c", "kind": "resume", "options": {}})
    end(tale, exits={0: ECC})
    assert failing_gpu(RunRecord(tale.layout), 2) is None


def test_once_left_out_the_settings_stay_and_the_rest_is_judged_by_itself(tale: Tale) -> None:  # noqa: F811
    train_on(tale, "0,1")
    end(tale, evidence=XID)
    end(tale, evidence=XID, epoch=8)
    first = decide(tale.layout.run)
    tale.recovery(Decision(RECOVER, "", first.options))
    train_on(tale, "0")
    end(tale, exits={0: ECC}, devices=1, marks={"gpus": {FIRST: 0}}, epoch=9)
    assert "failing" not in decide(tale.layout.run).why


@pytest.mark.parametrize("allowed", [True, False])
def test_a_point_of_another_number_of_ranks_is_not_chosen(tale: Tale, allowed: bool) -> None:  # noqa: F811
    train_on(tale, "0,1", allowed)
    kept = (tale.layout.weights / "epoch5.pt").read_bytes()
    for path in (*tale.layout.weights.glob("*.pt"), tale.layout.results_csv):
        path.unlink()
    end(tale, evidence=XID, epoch=1)
    end(tale, evidence=XID, epoch=1)
    tale.layout.points.mkdir(parents=True)
    tale.layout.point("a").write_bytes(kept)
    digest, ranks = hashlib.sha256(kept).hexdigest(), {"world_size": 2}
    write_header(tale.layout, StepPoint("a", 2, 1, 2, 4, 3, time.time(), len(kept), digest, training=ranks))
    decision = decide(tale.layout.run)
    assert decision.action == (RECOVER if allowed else RESUME), "with both it goes on from the point"
    assert bool(decision.options.get("force_restart")) == allowed


@pytest.mark.parametrize(
    ("devices", "fewer", "batch", "expected"),
    [
        (2, 1, 32, {"batch": 16}),
        (4, 3, 64, {"batch": 33}),
        (2, 1, 128, {"batch": 64, "nbs": 128, "weight_decay": 0.001}),
        (2, 1, 48, {"batch": 24, "nbs": 48, "weight_decay": 0.000375}),
        (8, 7, 16, {"batch": 7}),
        (2, 1, 0, {}),
    ],
)
def test_the_batch_on_fewer_gpus(devices: int, fewer: int, batch: int, expected: dict[str, Any]) -> None:
    found = on_fewer(devices, fewer, batch, {"nbs": 64, "weight_decay": 0.0005})
    assert found == pytest.approx(expected)


def test_the_batch_is_always_a_multiple_no_larger_a_gpu_and_the_step_about_as_large() -> None:
    for devices in range(2, 9):
        for batch in range(devices, 257, devices):
            for nbs in (16, 64, 128):
                found = on_fewer(devices, devices - 1, batch, {"nbs": nbs, "weight_decay": 0.0005})
                one, then = int(str(found["batch"])), int(str(found.get("nbs", nbs)))
                assert one % (devices - 1) == 0 and one // (devices - 1) <= batch // devices
                before, after = (n * max(round(of / n), 1) for n, of in ((batch, nbs), (one, then)))
                decay = float(str(found.get("weight_decay", 0.0005))) * after / then
                assert decay == pytest.approx(0.0005 * before / nbs * after / before)
                near = abs(after - before) <= NEARLY * before
                assert near or before < 8 * devices, "only where there is next to no choice"


def test_the_spec_says_whether_it_is_allowed_and_a_script_has_devices_of_its_own(tale: Tale) -> None:  # noqa: F811
    train_on(tale, "0,1")
    spec = read_spec(tale.layout.spec)
    assert spec is not None
    write_spec(tale.layout.spec, Spec(spec.train, spec.ours, kind="exec", auto=True, exec={"argv": ["x"]}))
    end(tale, evidence=XID)
    end(tale, evidence=XID)
    assert decide(tale.layout.run).why.endswith("resume, from epoch5.pt")
