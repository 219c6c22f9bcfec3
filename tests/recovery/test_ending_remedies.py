"""What is done unattended about an end that is no divergence, judged from files alone."""

from __future__ import annotations

import hashlib
import json
import time

import pytest

from nantui.recovery.unattended_policy import GIVE_UP, NOTHING, RECOVER, RESUME, batch_tried, decide, in_a_row
from nantui.run.endings import ENDINGS
from nantui.run.points import StepPoint, write_header
from nantui.run.record import RunRecord
from tests.recovery.test_ladder import Tale, tale  # noqa: F401

OOM = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"


def end(tale: Tale, cause: str, epoch: int = 7, evidence: str = "", outcome: str = "failed") -> None:  # noqa: F811
    tale.attempt(outcome, epoch, cause=cause, evidence=evidence)


@pytest.mark.parametrize("cause", ["cuda_error", "collective", "hung", "preempted", "rebooted", "host_lost"])
def test_these_are_resumed_from_the_newest_clean_checkpoint(tale: Tale, cause: str) -> None:  # noqa: F811
    end(tale, cause, outcome="stopped" if cause == "preempted" else "failed")
    decision = decide(tale.layout.run)
    assert decision.action == RECOVER and decision.options == {"to": "epoch5.pt", "presets": []}
    assert decision.why.startswith(ENDINGS[cause].title)


@pytest.mark.parametrize(
    ("cause", "action"), [("killed", NOTHING), ("exception", GIVE_UP), ("bad_arguments", GIVE_UP)]
)
def test_these_are_never_tried_again(tale: Tale, cause: str, action: str) -> None:  # noqa: F811
    end(tale, cause)
    assert decide(tale.layout.run).action == action


def test_each_kind_has_its_bound_and_an_epoch_gained_gives_it_back(tale: Tale) -> None:  # noqa: F811
    for _ in range(ENDINGS["cuda_error"].most):
        end(tale, "cuda_error")
        assert decide(tale.layout.run).action == RECOVER
    end(tale, "cuda_error")
    decision = decide(tale.layout.run)
    assert decision.action == GIVE_UP and "got no epoch farther" in decision.why
    end(tale, "cuda_error", epoch=8)
    assert decide(tale.layout.run).action == RECOVER


def test_all_kinds_together_have_a_bound(tale: Tale) -> None:  # noqa: F811
    for number in range(13):
        end(tale, ("hung", "loader", "collective", "cuda_oom", "preempted")[number % 5])
    assert in_a_row(RunRecord(tale.layout)).total() == 13
    assert decide(tale.layout.run).action == GIVE_UP


def test_what_a_person_began_counts_anew(tale: Tale) -> None:  # noqa: F811
    for _ in range(3):
        end(tale, "cuda_error")
    tale.journal.append("command", by="jo@station", command={"id": "c", "kind": "resume", "options": {}})
    end(tale, "cuda_error")
    assert decide(tale.layout.run).action == RECOVER


def test_the_batch_divides_nbs_and_counts_ultralytics_own_halving(tale: Tale) -> None:  # noqa: F811
    end(tale, "cuda_oom", evidence=OOM)
    assert decide(tale.layout.run).options["set"] == {"batch": 16}
    end(tale, "cuda_oom", evidence=OOM)
    said = "WARNING CUDA out of memory with batch=32. Reducing to batch={} and retrying ({}/3).\n"
    tale.layout.attempt_log(tale.number).write_text(said.format(24, 1) + said.format(12, 2))
    assert batch_tried(RunRecord(tale.layout), {"batch": 32}) == 12
    assert decide(tale.layout.run).options["set"] == {"batch": 8}, "the largest below 12 that divides 64"


def test_memory_of_the_host_and_loaders(tale: Tale) -> None:  # noqa: F811
    with tale.layout.args_yaml.open("a") as file:
        file.write("cache: ram\nworkers: 8\n")
    end(tale, "host_oom")
    assert decide(tale.layout.run).options["set"] == {"cache": False}
    end(tale, "loader")
    assert decide(tale.layout.run).options["set"] == {"workers": 4}


def test_no_worker_to_do_without_is_advice(tale: Tale) -> None:  # noqa: F811
    with tale.layout.args_yaml.open("a") as file:
        file.write("workers: 0\n")
    end(tale, "loader")
    decision = decide(tale.layout.run)
    assert decision.action == GIVE_UP and "--shm-size" in decision.why


def test_a_full_disk_and_a_lost_mount_are_waited_for(tale: Tale) -> None:  # noqa: F811
    end(tale, "data_gone", evidence="OSError: [Errno 116] Stale file handle: '/mnt/nas/images/1.jpg'")
    assert decide(tale.layout.run).options["until_there"] == "/mnt/nas/images/1.jpg"
    point = {"t": 1.0, "kind": "saved", "paths": ["weights/epoch1.pt"], "by_the_clock": True}
    tale.layout.events(1, 0).write_text(json.dumps(point) + "\n")
    end(tale, "disk_full")
    options = decide(tale.layout.run).options
    assert options["thin"] == ["epoch1.pt"], "only what the clock made, and never the newest clean one"
    assert options["until_free"] > 0


def test_what_never_saved_begins_again(tale: Tale) -> None:  # noqa: F811
    for path in tale.layout.weights.glob("*.pt"):
        path.unlink()
    tale.layout.results_csv.unlink()
    end(tale, "preempted", epoch=1, outcome="stopped")
    decision = decide(tale.layout.run)
    assert decision.action == RECOVER and decision.options == {"presets": [], "force_restart": True}


def test_what_was_cut_off_before_its_first_checkpoint_begins_again_and_later_nothing_does(
    tale: Tale,  # noqa: F811
) -> None:
    kept = [path.rename(path.with_suffix(".aside")) for path in tale.layout.weights.glob("*.pt")]
    rows = tale.layout.results_csv.read_text().splitlines(keepends=True)
    tale.layout.results_csv.write_text("".join(rows[:2]))
    end(tale, "rebooted", epoch=1)
    decision = decide(tale.layout.run)
    assert decision.action == RECOVER and decision.options["force_restart"]
    tale.layout.results_csv.write_text("".join(rows[:3]))
    decision = decide(tale.layout.run)
    assert decision.action == GIVE_UP and "no clean checkpoint is left" in decision.why
    tale.layout.results_csv.write_text("".join(rows[:2]))
    kept[0].rename(kept[0].with_suffix(".pt")).write_bytes(b"")
    assert decide(tale.layout.run).options.get("force_restart") is None, "what is there is not moved away"


def test_a_point_inside_the_first_epoch_is_gone_on_with(tale: Tale) -> None:  # noqa: F811
    kept = (tale.layout.weights / "epoch5.pt").read_bytes()
    for path in tale.layout.weights.glob("*.pt"):
        path.unlink()
    tale.layout.results_csv.unlink()
    tale.layout.points.mkdir(parents=True)
    tale.layout.point("a").write_bytes(kept)
    digest = hashlib.sha256(kept).hexdigest()
    write_header(tale.layout, StepPoint("a", 1, 1, 2, 4, 3, time.time(), len(kept), digest))
    end(tale, "preempted", epoch=1, outcome="stopped")
    decision = decide(tale.layout.run)
    assert decision.action == RESUME and decision.options == {}
