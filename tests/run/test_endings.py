"""Endings are told apart: recorded ones, a third of which took no part in making the rules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from nantui.run.endings import ENDINGS, EXCEPTION, Cause, Traces, classify, each_remedy

RECORDS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data/endings.yaml").read_text(encoding="utf-8")
)
NOT_TRACES = ("kind", "how", "held_out")


def told(record: dict[str, Any]) -> str:
    fields = {name: value for name, value in record.items() if name not in NOT_TRACES}
    return classify(Traces(**{"outcome": "failed", **fields})).kind


def wrong(records: list[dict[str, Any]]) -> list[str]:
    return [f"{one['kind']} taken for {told(one)}: {one}" for one in records if told(one) != one["kind"]]


@pytest.mark.parametrize("held_out", [False, True])
def test_nineteen_of_twenty_are_told_right(held_out: bool) -> None:
    records = [one for one in RECORDS if bool(one.get("held_out")) == held_out]
    missed = wrong(records)
    assert len(missed) <= 0.05 * len(records), "\n".join(missed)


OPENCV = "error: OpenCV(5.0.0) /io/opencv/modules/core/src/lut.cpp:158: error: (-215) in function 'LUT'"


@pytest.mark.parametrize(
    "traces",
    [
        Traces("failed", said=[OPENCV], code=1),
        Traces(
            "failed",
            said=["error: Caught error in DataLoader worker process 0."],
            log=f"cv2.error: Caught error in DataLoader worker process 0.\nOriginal:\ncv2.{OPENCV}\n",
            code=1,
        ),
        Traces(
            "failed",
            said=["error: Caught error in DataLoader worker process 0."],
            log=f"cv2.error: Caught error in DataLoader worker\ncv2.{OPENCV}\nwhile reading a/7.jpg\n",
            code=1,
        ),
        Traces("failed", said=["PIL.UnidentifiedImageError: cannot identify image file 'a/7.jpg'"], code=1),
    ],
)
def test_an_image_that_cannot_be_read_is_no_wrong_argument(traces: Traces) -> None:
    cause = classify(traces)
    assert cause.kind == EXCEPTION and cause.evidence.startswith("reading or augmenting an image failed: ")
    assert "OpenCV(5.0.0)" in cause.evidence or "a/7.jpg" in cause.evidence
    assert ("a/7.jpg" in cause.evidence) == ("a/7.jpg" in traces.log + traces.said[0])


@pytest.mark.parametrize(("said", "shown"), [
    ("it ended with status 0, but no Ultralytics train() was seen in it", ""),
    ("killed by SIGSEGV; last words: ValueError: an earlier one", ""),
    ("ended without a word (exit status 3)", ""),
    ("all is done", "no exception was seen; its last words: "),
    ("KeyError: 'a'", "an exception in the training's code: "),
    ("host b, rank 1: BadZipFile: File is not a zip file", "an exception in the training's code: "),
])  # fmt: skip
def test_nothing_is_called_an_exception_that_names_none(said: str, shown: str) -> None:
    assert Cause(EXCEPTION, said).text == shown + said


@pytest.mark.parametrize("said", [
    "ModuleNotFoundError: No module named 'ultralytics'", "SyntaxError: invalid syntax (train.py, line 3)",
    "subprocess.TimeoutExpired: Command 'sleep' timed out", "_queue.Empty", "TrialPruned",
    "BadZipFile: File is not a zip file",
])  # fmt: skip
def test_what_no_argument_can_mend_is_not_called_a_wrong_argument(said: str) -> None:
    cause = classify(Traces("failed", said=[said], code=1, trained=False))
    assert cause.text == f"an exception in the training's code: {said}"


def test_the_page_says_what_is_done_about_each() -> None:
    page = (Path(__file__).parents[2] / "docs/unattended.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    assert set(rows) == set(ENDINGS) and len(list(each_remedy())) == len(ENDINGS)
    for name, kind in ENDINGS.items():
        assert not kind.most or rows[name].rstrip("| ").endswith(f"| {kind.most}"), rows[name]


def test_the_table_is_large_and_has_every_kind() -> None:
    assert len(RECORDS) >= 40 and {one["kind"] for one in RECORDS} == set(ENDINGS)
    held_out = Counter(bool(one.get("held_out")) for one in RECORDS)
    assert held_out[True] >= len(RECORDS) / 3


FAULT = "GPU 0000:3b:00: Xid 79, GPU has fallen off the bus"


@pytest.mark.parametrize(
    ("kind", "traces"),
    [
        ("cuda_error", {"said": ["DistBackendError: NCCL error: remote process exited"], "ranks": 2}),
        ("cuda_error", {"said": ["RuntimeError: CUDA error: unknown error"]}),
        ("cuda_error", {"code": -6, "log": "step 7\n"}),
        ("hung", {"hung": "no step for 300 s; rank 0 in all_reduce (distributed_c10d.py:2806)"}),
    ],
)
def test_a_gpu_that_failed_is_the_evidence(kind: str, traces: dict[str, Any]) -> None:
    without, with_it = classify(Traces("failed", **traces)), classify(Traces("failed", gpu=FAULT, **traces))
    assert (with_it.kind, with_it.evidence) == (kind, f"{FAULT}; {without.evidence}")


@pytest.mark.parametrize(
    "traces",
    [
        {"said": ["ValueError: a mistake of the user's own"]},
        {"said": ["OSError: [Errno 28] No space left on device"]},
        {"outcome": "stopped", "killed_by": "anna"},
    ],
)
def test_what_has_another_reason_keeps_it(traces: dict[str, Any]) -> None:
    known = {"outcome": "failed", **traces}
    assert classify(Traces(gpu=FAULT, **known)) == classify(Traces(**known))
