"""`nantui compare --plot`: one curve of both runs, on a terminal."""

import math

import pytest

from nantui.commands.curves import Curve, draw, matching, of_both
from nantui.errors import UserError

FOUND = {
    "epochs": [1, 2, 3],
    "curves": {"val/box_loss": {"a": [4.0, 3.0, 2.0], "b": [4.0, 3.5, 3.0]}},
    "a": {"name": "first"},
    "b": {"name": "second"},
}


def test_both_curves_are_drawn_and_named():
    drawn = draw(of_both(FOUND, "val/box_loss"), plain=True)
    assert all(word in drawn for word in ("val/box_loss", "first", "second", "epoch", "4.0", "2.0"))


@pytest.mark.parametrize("spoilt", [[math.nan] * 3, [math.inf, 3.0, -math.inf]])
def test_what_is_not_finite_is_left_out(spoilt):
    curves = {"a": [4.0, 3.0, 2.0], "b": spoilt}
    drawn = draw(of_both({**FOUND, "curves": {"val/box_loss": curves}}, "val/box_loss"), plain=True)
    assert "first" in drawn and ("second" in drawn) is (3.0 in spoilt)
    nothing = {**FOUND, "curves": {"val/box_loss": {"a": [math.nan] * 3, "b": [math.nan] * 3}}}
    with pytest.raises(UserError, match="no finite value"):
        draw(of_both(nothing, "val/box_loss"))


@pytest.mark.parametrize(("level", "top"), [(0.0, "1.00"), (0.5, "1.00")])
def test_a_curve_that_does_not_move_has_no_axis_below_zero(level, top):
    drawn = draw([Curve("a", "metrics/mAP50(B)", [1, 2, 3], [level] * 3)], plain=True)
    assert "-0.5" not in drawn and "-1.0" not in drawn and top in drawn and "0.00" in drawn


def test_a_misspelt_curve_is_said_in_a_line():
    with pytest.raises(UserError, match="did you mean val/box_loss"):
        matching("val/box_los5", FOUND["curves"])
