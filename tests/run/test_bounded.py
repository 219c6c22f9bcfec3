"""Every reader of run/: any bytes give a value or one clear refusal, soon and in little memory."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nantui.errors import UserError
from nantui.run.atomic_files import read_json, read_yaml
from nantui.run.attempts import read_attempt, read_exits, registered
from nantui.run.binding import standing
from nantui.run.commands import pending
from nantui.run.documents import parse_json, parse_yaml
from nantui.run.events import parse_lines
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.plan import finished_folders, place_of, read_parts
from nantui.run.quarantine import quarantined
from nantui.run.record import RunRecord
from nantui.run.results import last_epochs, read_results
from nantui.run.spec import epochs_asked, read_args, read_spec
from nantui.run.telemetry import last_step, read_steps, steps_in_brief
from nantui.supervisor.state import read_holder, read_state
from nantui.supervisor.status import each_status, read_status

MEMORY, SECONDS = 1 << 30, 20
HUGE = (1e30, -1e30, 10**300, 2**63, float("inf"), float("nan"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(HUGE) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """What takes this much memory more, or this long, is a defect and ends the test."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, before)


def every_reader(layout: RunLayout) -> dict[str, Callable[[], object]]:
    """Return what reads the files of a run, by the file that it reads."""
    record = RunRecord(layout)

    def parts() -> object:
        spec = record.spec
        return (place_of(spec.plan), read_parts(layout, spec, record.journal)) if spec else None

    return {
        "args.yaml": lambda: (read_args(layout.args_yaml), epochs_asked(layout.args_yaml)),
        "results.csv": lambda: (read_results(layout.results_csv), last_epochs(layout.results_csv)),
        "nantui/spec.yaml": lambda: (read_spec(layout.spec), parts()),
        "nantui/journal.jsonl": lambda: (
            Journal(layout.journal).events(), finished_folders(layout, record.journal),
        ),
        "nantui/supervisor.json": lambda: (read_state(layout.supervisor), standing(layout.run)),
        "nantui/lock": lambda: read_holder(layout.lock),
        "nantui/quarantine.txt": lambda: quarantined(layout),
        "nantui/commands/1.json": lambda: pending(layout.commands),
        "nantui/attempts/001.json": lambda: read_attempt(layout, 1),
        "nantui/attempts/001.steps.csv": lambda: (
            read_steps(layout.steps(1)), steps_in_brief(layout.steps(1), undone=True),
            last_step(layout.steps(1)),
        ),
        "nantui/attempts/001.rank0.events.jsonl": lambda: (registered(layout, 1), record.newest.all_events),
        "nantui/attempts/001.rank0.exit.json": lambda: read_exits(layout, 1),
    }  # fmt: skip


NAMES = sorted(every_reader(RunLayout(Path("/nowhere"))))
KNOWN = {
    "nantui/spec.yaml": ("train", "ours", "plan", "exec", "auto", "nnodes", "python", "faults", "created"),
    "nantui/journal.jsonl": ("kind", "id", "steps", "phase", "aside", "t", "command", "settings", "attempt"),
    "nantui/supervisor.json": ("pid", "created", "ticks", "state", "attempt", "worker", "heartbeat", "doing"),
    "nantui/attempts/001.json": (
        "attempt",
        "uuid",
        "created",
        "mode",
        "checkpoint",
        "train",
        "ours",
        "python",
    ),
}
KINDS = ("attempt_started", "rollback_begun", "phase_begun", "phase_done", "incident", "saved", "registered")


@st.composite
def contents(draw: st.DrawFn, name: str) -> bytes:
    """Return what may stand in a file: any bytes, any JSON, or its own fields with anything in them."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(max_size=200))
    fields = KNOWN.get(name, ("kind", "epoch", "attempt", "pid", "epochs", "items"))
    lines = draw(st.lists(st.dictionaries(st.sampled_from(fields), JSON, min_size=1), min_size=1, max_size=3))
    for line in lines:
        if "kind" in line and draw(st.booleans()):
            line["kind"] = draw(st.sampled_from(KINDS))
    if name.endswith(".csv"):
        row = st.lists(
            st.sampled_from(["1", "1e30", "nan", "inf", "-1", "", '"', "x", "9" * 400]), max_size=6
        )
        rows = [",".join(cells) for cells in draw(st.lists(row, max_size=5))]
        head = "t,epoch,step,steps,skipped,reason" if "steps" in name else "epoch,time,train/box_loss"
        return "\n".join([head, *rows, ""]).encode()
    return "\n".join(json.dumps(line) for line in lines).encode("utf-8", "replace")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_content_of_any_file_gives_a_value_or_a_refusal(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    layout = RunLayout(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.draw(contents(name)))
    signal.alarm(SECONDS)
    for read in (every_reader(layout)[name], lambda: read_status(tmp_path, foreign=list)):
        try:
            read()
        except UserError as refused:
            assert "\n" not in str(refused)
    signal.alarm(0)


DEEP_JSON = "[" * 100_000
DEEP_OBJECT = '{"a":' * 500 + "1" + "}" * 500
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n" for old, new in zip("abcd", "bcde", strict=True)
)


@pytest.mark.parametrize("text", [DEEP_JSON, DEEP_OBJECT, '{"a": ' + DEEP_JSON, "[" * 70 + "]" * 70])
def test_json_that_is_too_deep_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") is None
    assert parse_lines([text, '{"kind": "note", "text": "whole"}'])[0].text == "whole"


@pytest.mark.parametrize(
    "text", [LAUGHS, MERGED, "a: &a [*a]", "[" * 200, "a: " + "[" * 70 + "]" * 70, "? " * 99]
)
def test_yaml_that_would_never_end_is_refused(text: str, tmp_path: Path) -> None:
    signal.alarm(SECONDS)
    with pytest.raises(ValueError):
        parse_yaml(text)
    (tmp_path / "args.yaml").write_text(text)
    assert read_yaml(tmp_path / "args.yaml") is None and read_args(tmp_path / "args.yaml") == {}


def test_what_nantui_itself_writes_is_within_bounds() -> None:
    shared = {"classes": [0, 1]}
    import yaml

    text = yaml.safe_dump({"train": shared, "plan": {"base": {"train": shared}}})
    assert "*id" in text and parse_yaml(text)["plan"]["base"]["train"] == shared


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    for name in ("x.json", "x.yaml"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)  # a hole: nothing is on the disk
    assert read_json(tmp_path / "x.json") is None and read_yaml(tmp_path / "x.yaml") is None
    layout = RunLayout(tmp_path)
    layout.home.mkdir()
    with layout.journal.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="larger than"):
        Journal(layout.journal).events()
    with pytest.raises(ValueError, match="deeper|larger"):
        parse_json(b" " * ((1 << 25) + 1))


def test_one_bad_run_costs_its_own_row(tmp_path: Path) -> None:
    bad, good = RunLayout(tmp_path / "bad"), RunLayout(tmp_path / "good")
    for layout in (bad, good):
        layout.home.mkdir(parents=True)
        layout.args_yaml.write_text("epochs: 3\n")
    bad.supervisor.write_text('{"pid": 1, "created": 0, "doing": ' + DEEP_JSON)
    bad.results_csv.write_text("epoch,time,train/box_loss\n1e30,1,1\n")
    with bad.journal.open("wb") as file:
        file.truncate(1 << 40)
    bad.spec.write_text(LAUGHS)
    rows = {status.path.name: status for status in each_status(tmp_path)}
    assert set(rows) == {"bad", "good"} and rows["good"].epochs == 3
