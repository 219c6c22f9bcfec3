"""What the screens are fed: text without poison, time and size in words, telemetry kept small,
runs read again and again.
"""

import json
import math
import operator
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.color import Color

from nantui.run.events import parse
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow
from nantui.run.spec import read_args
from nantui.run.telemetry import Step, StepFollower, header
from nantui.supervisor.status import read_status
from nantui.ui import format as words
from nantui.ui.glyphs import ASCII, SAMPLE, UNICODE, meter
from nantui.ui.model.comparison import _best, _span
from nantui.ui.model.run_reader import RunReader
from nantui.ui.model.step_store import MOST_POINTS, WHOLE_BYTES, StepStore
from nantui.ui.model.timeline import sentences
from nantui.ui.styled_text import column, fit, spread, width, wrap
from nantui.ui.widgets.line_widget import changed_runs, legible
from nantui.ui.widgets.timeline import in_short
from nantui.words import count, which_epochs
from tests.ui.inks import plain
from tests.ui.synthetic import LOSSES, make_run, step_line, write_results, write_steps


@given(st.text(max_size=300))
def test_cleaned_text_steers_no_terminal(text):
    cleaned = words.clean(text + "\x1b]0;owned\x07\x1b[2J\u202e")
    assert not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in cleaned)
    assert "\u202e" not in cleaned and "owned" not in cleaned


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(5, "5 s"), (200, "3 min 20 s"), (8040, "2 h 14 min"), (200_000, "2 d 7 h"), (math.nan, "-")],
)
def test_durations(seconds, said):
    assert words.duration(seconds) == said


@given(st.integers(0, 10**15 - 1))
def test_sizes_leave_a_gap_in_a_column_of_eight(count_of_bytes):
    assert len(words.size(count_of_bytes)) <= 7


@pytest.mark.parametrize(
    ("count_of_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (21_437_000, "21.4 MB"), (237_700, "238 kB"), (999_960, "1000 kB")],
)
def test_sizes(count_of_bytes, said):
    assert words.size(count_of_bytes) == said


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_are_short(value):
    assert len(words.number(value)) <= 9


def test_signs_are_one_cell_wide_everywhere():
    signs = (
        "".join(str(value) for value in vars(UNICODE).values() if isinstance(value, str))
        + "".join(UNICODE.meter)
        + SAMPLE
    )
    for letter in signs:
        assert unicodedata.east_asian_width(letter) in ("N", "Na"), letter
        assert cell_len(letter) == 1, letter
    assert all(str(value).isascii() for value in vars(ASCII).values())


@given(st.floats(-1, 2), st.integers(0, 50))
def test_meters_have_their_width(share, cells):
    assert sum(len(text) for text, _ in meter(share, cells, UNICODE)) == cells


@given(st.text(max_size=60), st.text(max_size=60), st.integers(1, 80))
def test_lines_fit_whatever_is_in_them(left, right, cells):
    left, right = words.clean(left), words.clean(right)
    assert width(fit([(left, "text")], cells)) <= cells
    assert width(spread([(left, "text")], [(right, "text")], cells)) <= cells
    assert cell_len(column(left, cells)) == cells


def test_long_words_and_paragraphs_are_wrapped():
    lines = wrap("one two three four five", 9)
    assert [plain(line) for line in lines] == ["one two", "three", "four five"]
    assert [plain(line) for line in wrap("it takes 55 s yet", 12)] == ["it takes", "55 s yet"]
    assert [plain(line) for line in wrap("at /data/shapes/images", 12)] == ["at", "/data/shapes", "/images"]


def test_what_cannot_be_read_on_the_cursors_ground_takes_its_colour():
    white, black, cyan, blue = map(Color.parse, ("#ffffff", "#000000", "#00e5ff", "#0000a0"))
    assert not legible(white, white) and not legible(cyan, white) and legible(blue, white)
    assert legible(white, black) and legible(Color.default(), white), "nobody knows a terminal's own colour"


def test_the_timeline_keeps_the_end_of_long_paths():
    said = in_short("autopsy: broken pixels: /data/shapes/images/train/012.png (1 pixel), 3/4 done in runs/a")
    assert said == "autopsy: broken pixels: train/012.png (1 pixel), 3/4 done in runs/a"


def test_emoji_are_left_out_and_names_are_not():
    assert words.without_pictures("Ultralytics 8.4 \U0001f680 Python") == "Ultralytics 8.4 Python"
    assert words.without_pictures("垃圾_v2") == "垃圾_v2"


def test_only_the_cells_that_differ_are_repainted():
    assert changed_runs([("step 41", "text")], [("step 42", "text")], 20) == [(6, 7)]
    assert changed_runs([("same", "a")], [("same", "a")], 20) == []
    assert changed_runs([("same", "a")], [("same", "b")], 20) == [(0, 4)]
    far = " " * 20
    assert changed_runs([(f"1 2{far}3", "a")], [(f"4 5{far}6", "a")], 30) == [(0, 3), (23, 24)]


def test_a_snapshot_reuses_what_has_not_changed(tmp_path):
    run = make_run(tmp_path / "run")
    reader = RunReader(run, read_status)
    reader.read()
    first, second = reader.read(), reader.read()
    for part in ("rows", "steps", "journal", "events", "checkpoints", "timeline"):
        assert getattr(first, part) is getattr(second, part), part
    assert all(map(operator.is_, first.epoch_charts, second.epoch_charts)), "nothing to draw again"
    assert first.epoch_charts[0].curves and first.step_charts[0].curves
    with RunLayout(run).journal.open("a") as journal:
        journal.write(json.dumps({"t": 1.0, "kind": "note", "text": "x"}) + "\n")
    assert reader.read().journal is not first.journal


def test_epochs_trimmed_by_a_rollback_stay_as_superseded(tmp_path):
    run = make_run(tmp_path / "run", done=12, nan_from=8)
    layout = RunLayout(run)
    copy = layout.backups / "r1" / "copies" / "results.csv"
    copy.parent.mkdir(parents=True)
    copy.write_text(layout.results_csv.read_text())
    whole = layout.results_csv.read_text().splitlines(keepends=True)
    layout.results_csv.write_text("".join(whole[:8]))
    rows = RunReader(run, read_status).read().rows
    assert [row.epoch for row in rows if row.superseded] == [8, 9, 10, 11, 12]
    assert [row.epoch for row in rows if not row.superseded] == [1, 2, 3, 4, 5, 6, 7]


def test_a_torn_line_means_not_yet(tmp_path):
    path = tmp_path / "001.steps.csv"
    write_steps(path, 1, 4, 0.0)
    text = path.read_text()
    path.write_text(text[:-10])
    store = StepStore()
    steps = StepFollower(path)
    store.read(steps)
    assert store.last["step"] == 3
    path.write_text(text)
    store.read(steps)
    assert store.last["step"] == 4


def test_telemetry_of_any_length_stays_small_and_keeps_its_peak(tmp_path):
    path = tmp_path / "001.steps.csv"
    with path.open("w") as file:
        file.write(",".join(header(LOSSES)) + "\n")
        for index in range(30_000):
            norm = 5000.0 if index == 12_345 else 4.0
            place = {"t": index, "epoch": index // 100 + 1, "step": index % 100 + 1, "steps": 100}
            file.write(step_line((1, 1, 1), grad_norm=norm, **place))
    store = StepStore()
    steps = StepFollower(path, whole_bytes=WHOLE_BYTES)
    while store.read(steps):
        pass
    xs, ys = store.curves().columns["grad_norm"]
    assert len(xs) <= MOST_POINTS + 1 and xs[-1] > 29_900
    assert max(ys) == 5000.0
    assert store.curves().note == f"1 in {30_000 // len(xs)}"


def test_a_step_without_a_norm_is_no_nan():
    """With gradient accumulation most batches end without an optimizer step."""
    store = StepStore()
    for step in range(1, 20_001):
        values = {"lr": 0.1} if step % 4 else {"lr": 0.1, "grad_norm": math.nan if step == 8 else 2.0}
        store.add(Step(float(step), 1, step, 20_000, False, "", {"box_loss": 1.0}, values))
    for columns in (store.curves().columns, store.curves().recent):
        assert columns["grad_norm"][1] and len(columns["grad_norm"][0]) == len(columns["grad_norm"][1])
    whole = store.curves().columns["grad_norm"][1]
    assert sum(value != value for value in whole) == 1, "the one that is a NaN stays"
    assert all(value == 2.0 for value in store.curves().recent["grad_norm"][1])


def test_a_repeated_stretch_replaces_the_older_one():
    store = StepStore()
    for epoch, loss in ((1, 3.0), (2, 2.0), (2, 1.0)):
        for step in (1, 2):
            store.add(Step(float(epoch), epoch, step, 2, False, "", {"box_loss": loss}))
    xs, ys = store.curves().columns["box_loss"]
    assert xs == (1.0, 2.0, 3.0, 4.0) and ys == (3.0, 3.0, 1.0, 1.0)
    assert store.curves().note == "", "nothing was thinned"


def told(*entries):
    return [
        one.text for one in sentences([parse({"t": float(t), **entry}) for t, entry in enumerate(entries)])
    ]


def test_nothing_is_confirmed_where_nothing_was_asked():
    confirmed = "every setting asked for is in effect"
    for asked, found in (({}, []), ({"lr0": 0.1}, [confirmed])):
        lines = told({"kind": "attempt_started", "attempt": 1, "asked": asked}, {"kind": "in_effect"})
        assert lines[1:] == found


def test_what_a_rollback_has_told_is_not_told_again():
    done = {"text": "restored epoch6.pt (epoch 7); 1 file moved aside"}
    lines = told(
        {"kind": "rollback_done", "id": "a", **done},
        {"kind": "command_done", "id": "a", "command_kind": "rollback", "ok": True, **done},
        {"kind": "undo_begun", "id": "b", "text": "the rollback to epoch6.pt was taken back"},
        {"kind": "undo_done", "id": "b", "text": "the rollback to epoch6.pt was taken back"},
        {"kind": "command_done", "id": "c", "command_kind": "undo", "ok": True,
         "text": "the rollback to epoch6.pt was taken back"},
        {"kind": "rollback_done", "id": "d", **done},
        {"kind": "command_done", "id": "d", "command_kind": "recover", "ok": True,
         "text": f"{done['text']}; attempt 2 started"},
    )  # fmt: skip
    assert lines == [
        f"rollback done: {done['text']}",
        "undo begun: the rollback to epoch6.pt is taken back",
        "undo done: the rollback to epoch6.pt was taken back",
        f"rollback done: {done['text']}",
        "recover done: attempt 2 started",
    ]


@pytest.mark.parametrize(("amount", "word", "said"), [
    (1, "file", "1 file"), (0, "file", "0 files"), (2, "process", "2 processes"),
    (12345, "step", "12,345 steps"),
])  # fmt: skip
def test_numbers_of_things(amount, word, said):
    assert count(amount, word) == said


@pytest.mark.parametrize(("which", "said"), [
    ("3 to 17", "epochs 3 to 17"), ("4", "epoch 4"), ("1 and part of 2", "epochs 1 and part of 2"),
    ("all 12 epochs", "all 12 epochs"), ("part of 3", "part of 3"),
])  # fmt: skip
def test_epochs_are_named(which, said):
    assert which_epochs(which) == said


@pytest.mark.parametrize(
    ("entry", "text", "ink"),
    [
        ({}, "every setting asked for is in effect", "good"),
        (
            {"unreported": ["mosaic", "mixup"], "notes": ["mosaic is closed"]},
            "in effect as asked, as far as reported; not reported: mosaic, mixup (mosaic is closed)",
            "info",
        ),
        (
            {"unreported": ["mixup"], "differences": [{"name": "lr0", "asked": 1, "in_effect": 2}]},
            "not as asked: lr0: asked 1, in effect 2",
            "warn",
        ),
    ],
)
def test_the_timeline_says_what_the_worker_confirmed_and_no_more(entry, text, ink):
    (sentence,) = sentences([parse({"t": 1.0, "kind": "in_effect", **entry})])
    assert (sentence.text, sentence.ink) == (text, ink)


def test_neighbouring_epochs_that_are_not_finite_are_one_sentence():
    epochs = [
        {"kind": "epoch", "t": float(n), "epoch": n, "finite": n not in (3, 4, 6, 9)} for n in range(1, 10)
    ]
    events = [*epochs[:6], {"kind": "warning", "t": 6.5, "text": "odd"}, *epochs[6:]]
    told = [(one.event.t, one.text, one.ink) for one in sentences((), map(parse, events))]
    assert told == [
        (3.0, "epochs 3 to 6 have losses that are not finite", "bad"),
        (6.5, "warning: odd", "warn"),
        (9.0, "epoch 9 has losses that are not finite", "bad"),
    ]


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["kind", "t", "epoch", "step", "text", "command", "settings", "outcome"]),
            st.one_of(st.none(), st.text(max_size=9), st.integers(), st.lists(st.integers(), max_size=2)),
        )
    )
)
def test_any_journal_makes_a_timeline(entries):
    known = (
        "created",
        "incident",
        "attempt_started",
        "attempt_ended",
        "command",
        "command_done",
        "in_effect",
        "autopsy",
    )
    for index, entry in enumerate(entries):
        entry["kind"] = known[index % len(known)]
    assert len(sentences(map(parse, entries))) <= len(entries)


def test_results_that_are_half_written_or_strange_are_read_as_far_as_they_go(tmp_path):
    run = make_run(tmp_path / "run", done=3, nan_from=None)
    layout = RunLayout(run)
    write_results(layout.results_csv, 3, None)
    layout.results_csv.write_bytes(layout.results_csv.read_bytes() + b"4,17,\xff\xfe,nan\n5,1")
    layout.args_yaml.write_text("{ not yaml")
    snapshot = RunReader(run, read_status).read()
    assert [row.epoch for row in snapshot.rows] == [1, 2, 3]
    assert read_args(layout.args_yaml) == {}


def test_of_equally_good_epochs_the_first_is_the_best_and_one_epoch_is_no_span():
    rows = [EpochRow(epoch, 1.0, {"metrics/mAP50-95(B)": 0.0}, 0) for epoch in (1, 2, 20)]
    side = SimpleNamespace(rows=rows)
    assert _best(side, "metrics/mAP50-95(B)") == "0 at 1"
    assert (_span(side), _span(SimpleNamespace(rows=rows[2:])), _span(SimpleNamespace(rows=[]))) == (
        "1 to 20",
        "20",
        "none",
    )
