"""Curves: thinning keeps peaks and gaps, limits ignore outliers, ticks are round,
marks and dashes are drawn.
"""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nantui.ui.charts.axis import Scale, limits, linear_ticks, on_rows, rounded_end
from nantui.ui.charts.canvas import spark
from nantui.ui.charts.draw import draw
from nantui.ui.charts.series import MOST_COLUMNS, Curve, Mark, Picture, View, nearest, smooth, thin, window
from nantui.ui.glyphs import ASCII, UNICODE
from nantui.ui.styled_text import width
from tests.ui.inks import plain


def text(picture, columns=60, rows=12, glyphs=UNICODE):
    return [plain(line) for line in draw(picture, columns, rows, glyphs)]


def test_thinning_keeps_the_peak_and_the_gap():
    xs = list(range(100_000))
    ys = [1.0] * 100_000
    ys[54_321], ys[70_000] = 99.0, math.nan
    points = thin(xs, ys, 100)
    assert len(points) <= 300
    assert 99.0 in [y for _, y in points]
    assert any(math.isnan(y) for _, y in points)


def test_the_newest_values_stand_beside_what_is_looked_at():
    curves = Curve("train", (1.0, 2.0), (2.0, 1.346)), Curve("val", (1.0, 2.0), (2.1, 1.467), "val")
    title = text(Picture("box", curves, view=View(last=100)), 25)[0]
    assert title.startswith("box last 100") and title.endswith("1.35  1.47")


def test_what_was_rolled_back_does_not_flatten_what_stands():
    epochs = tuple(map(float, range(1, 13)))
    old = Curve("rolled back train", epochs, tuple(10.0 ** (n / 2) for n in range(12)), "old")
    stands = Curve("train", epochs, tuple(2 - 0.1 * n for n in range(12)))
    shown = text(Picture("box", (old, stands), floor=0.0))
    assert any("▴" in line for line in shown), "that it goes on above is marked"
    whole = text(Picture("box", (old, stands), floor=0.0, view=View(whole=True)))
    assert top_label(shown) < 5 < 1e5 < top_label(whole)


def top_label(shown):
    return next(float(line.split()[0]) for line in shown[1:] if line[:6].strip())


def test_one_outlier_does_not_flatten_the_curve_unless_asked_for():
    values = [1 + 0.01 * n for n in range(100)] + [1e6]
    assert limits(values, log=False, whole=False).high < 10
    assert limits(values, log=False, whole=True).high >= 1e6


def test_what_is_outside_is_marked_at_the_edge():
    xs = tuple(map(float, range(101)))
    ys = (*[1 + 0.01 * n for n in range(100)], 1e6)
    assert UNICODE.above in "".join(text(Picture("loss", (Curve("train", xs, ys),)))[1])


def test_nan_is_a_gap_with_a_mark_and_named_in_the_title():
    picture = Picture("box", (Curve("val", (1.0, 2.0, 3.0, 4.0), (2.0, 1.5, math.nan, math.nan), "val"),))
    lines = text(picture)
    assert "nan" in lines[0]
    assert lines[-2].count(UNICODE.bad) == 2


def test_where_it_is_narrow_a_letter_tells_the_curves_apart_if_it_can():
    train = Curve("train", (1.0, 2.0), (4.0, 3.6754))
    narrow = [Picture("box", (train, Curve(name, (1.0, 2.0), (1.0, 0.1759)))) for name in ("val", "test")]
    titles = [text(one, columns=21)[0] for one in narrow]
    assert "t 3.68  v 0.176" in titles[0] and titles[1].rstrip().endswith(" 3.675  0.1759")
    assert " t " not in text(Picture("learning rate", (train,)), columns=23)[0]


def test_marks_of_rollbacks_and_incidents_stand_on_the_axis():
    curve = Curve("train", tuple(map(float, range(1, 21))), tuple(1 / n for n in range(1, 21)))
    bottom = text(
        Picture("box", (curve,), (Mark(8.0, "incident"), Mark(12.0, "rollback"), Mark(15.0, "skip")))
    )[-2]
    assert UNICODE.bad in bottom and UNICODE.rollback in bottom and UNICODE.skip in bottom


def test_cursor_reads_the_nearest_point():
    curve = Curve("train", (1.0, 2.0, 3.0), (5.0, 6.0, 7.0))
    assert nearest(curve, 2.2) == (2.0, 6.0)
    assert "6.000" in text(Picture("box", (curve,), view=View(cursor=2.2)))[0]


def test_smoothing_keeps_gaps_and_the_mean():
    smoothed = smooth([1.0, math.nan, 1.0, 1.0], 5)
    assert math.isnan(smoothed[1]) and smoothed[-1] == pytest.approx(1.0)


def test_a_window_keeps_a_point_on_either_side():
    curve = Curve("a", tuple(map(float, range(10))), tuple(map(float, range(10))))
    assert window(curve, 3.0, 5.0).xs == (2.0, 3.0, 4.0, 5.0, 6.0)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(1, 12))
def test_ticks_are_few_inside_and_rising(low, span, most):
    ticks = linear_ticks(low, low + span, most)
    assert 1 <= len(ticks) <= max(1, most)
    assert ticks == sorted(ticks)


SIZES = st.floats(-1e9, 1e9), st.floats(1e-9, 1e9)


@given(*SIZES, st.integers(3, 60))
@example(0.0012, 0.00004, 5)
@example(0.0, 5.1, 5)
def test_a_linear_axis_has_distinct_labels_evenly_spaced_on_rows(low, span, rows):
    high = low + max(span, 1e-6 * abs(low))
    scale, ticks = on_rows(Scale(low, high), rows)
    assert scale.low <= low and scale.high >= high
    at = sorted(ticks)
    assert len(at) >= min(2, rows) and all(0 <= row < rows for row in at)
    assert len({below - above for above, below in itertools.pairwise(at)}) <= 1, "rows apart"
    shown = [float(ticks[row]) for row in at]
    steps = [above - below for above, below in itertools.pairwise(shown)]
    assert all(step > 0 for step in steps), "distinct and falling"
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6) if steps else True
    for row, value in zip(at, shown, strict=True):
        dot = (1 - scale.place(value)) * (4 * rows - 1)
        assert dot == pytest.approx(4 * row + 2, abs=0.05), "a tick is where its label stands"
    assert max(map(len, ticks.values())) <= 11


@given(st.floats(1e-12, 1e6), st.floats(1.0, 1e12), st.integers(3, 60))
def test_a_logarithmic_axis_has_distinct_labels_that_fall(low, factor, rows):
    bounds = limits([low, low * factor], log=True, whole=True)
    scale, ticks = on_rows(bounds, rows)
    assert scale.low <= bounds.low and scale.high >= bounds.high * (1 - 1e-9)
    shown = [float(ticks[row]) for row in sorted(ticks)]
    assert all(0 <= row < rows for row in ticks)
    assert shown and all(above > below for above, below in itertools.pairwise(shown))


def test_decades_are_equally_far_apart():
    _, ticks = on_rows(Scale(0.001, 100.0, True), 16)
    assert list(ticks.values())[::-1] == ["100", "10", "1", "0.1", "0.01", "0.001"]
    assert len({below - above for above, below in itertools.pairwise(sorted(ticks))}) == 1


def test_a_sign_means_one_thing():
    for glyphs in (UNICODE, ASCII):
        signs = [glyphs.skip, glyphs.above, glyphs.rollback, glyphs.bad, glyphs.separator]
        assert len(set(signs)) == len(signs)


@pytest.mark.parametrize("rows", [4, 5, 6, 7, 12])
def test_marks_do_not_cover_a_curve(rows):
    xs = tuple(map(float, range(1, 41)))
    curve = Curve("train", xs, tuple(0.01 for _ in xs[:-1]) + (1.0,))
    bare = text(Picture("box", (curve,), floor=0.0), rows=rows)
    marked = text(Picture("box", (curve,), tuple(Mark(x, "rollback") for x in xs), floor=0.0), rows=rows)
    assert "".join(marked).count(UNICODE.rollback) <= "".join(bare).count(" ")
    dots = [
        sum("\u2801" <= sign <= "\u28ff" and sign != "\u2804" for sign in "".join(lines))
        for lines in (bare, marked)
    ]
    assert dots[1] >= dots[0] * 0.9


def test_a_broken_curve_is_told_from_an_unbroken_one():
    xs = tuple(map(float, range(60)))

    lines = [
        "".join(text(Picture("box", (Curve("val", xs, (1.0,) * 60, "val", dashed),)))[1:-1])
        for dashed in (False, True)
    ]
    solid, broken = (
        sum("\u2801" <= sign <= "\u28ff" and sign != "\u2804" for sign in line) for line in lines
    )
    assert broken < 0.6 * solid


values = st.lists(st.floats(width=32), min_size=0, max_size=200)


@given(values, st.integers(1, 90), st.integers(1, 30), st.booleans(), st.booleans(), st.booleans())
@example([-9818182656.0], 12, 4, False, False, False)
@example([2.0, 0.5], 12, 4, True, False, False)
def test_whatever_the_values_the_picture_has_its_size(ys, columns, rows, log, whole, ascii_only):
    xs = tuple(float(index) for index in range(len(ys)))
    picture = Picture("loss", (Curve("train", xs, tuple(ys)),), view=View(log=log, whole=whole))
    lines = draw(picture, columns, rows, ASCII if ascii_only else UNICODE)
    assert len(lines) == rows
    assert all(width(line) <= columns for line in lines)
    if ascii_only:
        assert all(plain(line).isascii() for line in lines)


def test_a_point_more_leaves_the_axes_where_they_were():
    ends = {rounded_end(1.0, float(last)) for last in range(121, 137)}
    assert len(ends) <= 3 and all(end >= 121 for end in ends)
    scales = {on_rows(limits([1.0 + step / 1000, 5.0], log=False, whole=True), 8)[0] for step in range(40)}
    assert len(scales) == 1


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e6))
@example(5.960464477539063e-08, 500000.0)
def test_axes_hold_what_they_are_made_for(low, span):
    scale, _ = on_rows(limits([low, low + span], log=False, whole=True), 8)
    assert scale.low <= low and scale.high >= low + span
    assert low + span <= rounded_end(low, low + span)


def test_long_curves_are_drawn_from_few_points_that_keep_peaks_and_gaps():
    ys = [1.0] * 50_000
    ys[12_345], ys[30_000] = 99.0, math.nan
    coarse = Curve("long", tuple(map(float, range(50_000))), tuple(ys)).coarse
    assert len(coarse.xs) < 3 * MOST_COLUMNS
    assert 99.0 in coarse.ys and any(y != y for y in coarse.ys)


@given(st.lists(st.floats(-1, 2), max_size=90), st.integers(1, 30), st.booleans())
def test_a_spark_has_its_width(shares, cells, braille):
    text = spark(shares, cells, braille)
    assert len(text) == cells and (braille or text.isascii())


def test_a_spark_tells_high_from_low():
    assert spark([0.0, 0.0, 1.0, 1.0], 2, True) == "\u28c0\u28ff"
    assert spark([0.0, 0.5, 1.0], 3, False) == "_-#"


@pytest.mark.parametrize("most", [1e300, 1e307, 1.7e308])
def test_values_at_the_end_of_what_a_float_holds_are_drawn(most):
    curve = Curve("a", (1.0, 2.0, 3.0), (0.0, most, most / 2), "accent")
    for columns, rows in ((40, 8), (80, 20)):
        assert draw(Picture("a", (curve,)), columns, rows, UNICODE)
