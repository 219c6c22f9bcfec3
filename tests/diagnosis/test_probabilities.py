"""The arithmetic of causes: priors, ratios, posterior, and that everything is in the result."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nantui.diagnosis.causes import BY_HAND
from nantui.diagnosis.evidence import (  # fmt: skip
    DATA,
    EXPLOSION,
    FP16,
    GUIDE,
    HARDWARE,
    PRIOR,
    RATE,
    TITLES,
    Evidence,
    rank_causes,
    ratio_text,
)
from nantui.recovery.remedies import measured

RATIOS = st.dictionaries(st.sampled_from(sorted(PRIOR)), st.floats(1e-3, 1e3), max_size=7)


def test_without_evidence_the_priors_stand_in_the_guides_proportions():
    ranked = {item.cause: item.probability for item in rank_causes([])}
    assert sum(ranked.values()) == pytest.approx(1)
    assert ranked[EXPLOSION] / ranked[RATE] == pytest.approx(GUIDE[EXPLOSION] / GUIDE[RATE])
    assert ranked[DATA] / ranked[FP16] == pytest.approx(GUIDE[DATA] / GUIDE[FP16])
    assert [item.cause for item in rank_causes([])][:4] == [EXPLOSION, RATE, DATA, FP16]


@given(st.lists(RATIOS.map(lambda ratios: Evidence("x", "seen", "here", ratios)), max_size=6))
def test_the_posterior_is_prior_times_ratios(pieces):
    ranked = rank_causes(pieces)
    assert sum(item.probability for item in ranked) == pytest.approx(1)
    odds = dict(PRIOR)
    for piece in pieces:
        for cause, ratio in piece.ratios.items():
            odds[cause] *= ratio
    for item in ranked:
        assert item.probability == pytest.approx(odds[item.cause] / sum(odds.values()))
    assert [item.probability for item in ranked] == sorted(
        (item.probability for item in ranked), reverse=True
    )


def test_each_cause_shows_the_evidence_that_moved_it_and_no_other():
    pieces = [
        Evidence("a", "one", "events", {HARDWARE: 150.0}),
        Evidence("b", "two", "settings", {FP16: 0.001}),
    ]
    documents = {item.cause: item.to_json() for item in rank_causes(pieces)}
    assert documents[HARDWARE]["evidence"] == ["one (odds x 150, events)"]
    assert documents[FP16]["evidence"] == ["two (odds / 1e+03, settings)"]
    assert documents[EXPLOSION]["evidence"] == []
    assert documents[HARDWARE]["details"] == [
        {"name": "a", "text": "one", "source": "events", "ratio": 150.0}
    ]


def test_every_cause_has_a_title_a_prior_and_a_remedy():
    helps = {cause for cause in PRIOR if cause in BY_HAND or measured(cause, ())}
    assert set(TITLES) == set(PRIOR) == helps
    assert ratio_text(0.5) == "odds / 2"
