"""Curves: thinning keeps peaks and gaps, limits ignore outliers, ticks are round,
marks and dashes are drawn.
"""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nantui.ui.charts.axis import Scale, limits, linear_ticks, rounded_end, tick_label
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


def test_one_outlier_does_not_flatten_the_curve_unless_asked_for():
    values = [1 + 0.01 * n for n in range(100)] + [1e6]
    assert limits(values, log=False, whole=False).high < 10
    assert limits(values, log=False, whole=True).high > 1e6


def test_what_is_outside_is_marked_at_the_edge():
    xs = tuple(map(float, range(101)))
    ys = (*[1 + 0.01 * n for n in range(100)], 1e6)
    assert UNICODE.above in "".join(text(Picture("loss", (Curve("train", xs, ys),)))[1])


def test_nan_is_a_gap_with_a_mark_and_named_in_the_title():
    picture = Picture("box", (Curve("val", (1.0, 2.0, 3.0, 4.0), (2.0, 1.5, math.nan, math.nan), "val"),))
    lines = text(picture)
    assert "nan" in lines[0]
    assert lines[-2].count(UNICODE.bad) == 2


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


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_number_has_a_short_label(value):
    if math.isfinite(value):
        assert len(tick_label(value)) <= 9


def test_logarithmic_ticks_are_powers_of_ten():
    assert Scale(0.001, 100.0, True).ticks(9) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])


values = st.lists(st.floats(width=32), min_size=0, max_size=200)


@given(values, st.integers(1, 90), st.integers(1, 30), st.booleans(), st.booleans(), st.booleans())
@example([-9818182656.0], 12, 4, False, False, False)
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
    scales = {limits([1.0 + step / 1000, 5.0], log=False, whole=True) for step in range(40)}
    assert len(scales) == 1


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e6))
@example(5.960464477539063e-08, 500000.0)
def test_axes_hold_what_they_are_made_for(low, span):
    scale = limits([low, low + span], log=False, whole=True)
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
