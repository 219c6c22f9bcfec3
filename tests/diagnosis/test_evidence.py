"""Each look at the facts: when it speaks, what it favours, and when it stays silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from nantui.diagnosis.causes import missing
from nantui.diagnosis.evidence import (  # fmt: skip
    CHECKPOINT,
    DATA,
    EXPLOSION,
    FP16,
    HARDWARE,
    RATE,
    SINGULAR,
    from_autopsy,
    from_history,
    learning_rate,
    of_settings,
    recurrence,
    start,
)
from nantui.diagnosis.facts import TroubleFacts
from nantui.run.attempts import Attempt
from nantui.run.events import parse
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import EpochRow
from nantui.run.telemetry import Step

HERE = RunRecord(RunLayout(Path("/nowhere")))


def facts(**known):
    return TroubleFacts(HERE, watched=known.pop("watched", True), **known)


def steps(norms, losses=None, reason="", **values):
    losses = losses or [1.0] * len(norms)
    return [
        Step(
            0.0,
            1,
            number,
            100,
            bool(reason),
            reason,
            {"box_loss": loss},
            {"grad_norm": norm, "lr": 0.01, **values},
        )
        for number, (norm, loss) in enumerate(zip(norms, losses, strict=True), 1)
    ]


def incident(kind="nan_loss", step=50, files=()):
    evidence = {"files": [[file] for file in files]}
    return parse({"kind": "incident", "incident": kind, "epoch": 1, "step": step, "evidence": evidence})


def attempt(mode="start", model="yolov8n.yaml"):
    return Attempt(
        2, "u", 0.0, mode, "weights/last.pt" if mode == "resume" else None, {"model": model}, {}, "python"
    )


def only(look, known):
    (piece,) = look(known)
    return piece


def favours(ratios, cause):
    return ratios.get(cause, 1) == max(*ratios.values(), 1) and ratios.get(cause, 1) > 1


def autopsy(cause, **measured):
    return facts(autopsy=parse({"kind": "autopsy", "cause": cause, "text": "seen", "evidence": measured}))


@pytest.mark.parametrize(
    ("cause", "measured", "favoured"),
    [
        ("broken_pixels", {}, DATA),
        ("broken_labels", {}, DATA),
        ("fp16_overflow", {}, FP16),
        ("learning_rate", {}, RATE),
        ("not_reproduced", {}, HARDWARE),
        ("corrupt_weights", {}, HARDWARE),
        ("spoilt_statistics", {}, CHECKPOINT),
        ("exploding_gradient", {"fp32_first_bad_module": "model.3"}, EXPLOSION),
        ("exploding_gradient", {"fp32_loss_finite": False}, SINGULAR),
        ("exploding_gradient", {"bad_gradients": ["a"], "grad_norm": "inf"}, HARDWARE),
        ("exploding_gradient", {"bad_gradients": list("abcdef"), "grad_norm": "nan"}, SINGULAR),
        ("exploding_gradient", {"bad_gradients": list("abcdef"), "fp32_largest_activation": 9e5}, EXPLOSION),
        ("exploding_gradient", {"bad_gradients": list("abcdef"), "fp32_largest_activation": 9.0}, SINGULAR),
    ],
)
def test_what_the_autopsy_found(cause, measured, favoured):
    assert favours(only(from_autopsy, autopsy(cause, **measured)).ratios, favoured)


def test_corrupt_weights_mean_what_could_have_made_them_so():
    found = parse({"kind": "autopsy", "cause": "corrupt_weights", "text": "seen", "evidence": {}})
    resumed = facts(autopsy=found, attempt=attempt("resume"), trouble=[incident()], steps_in=0)
    assert favours(only(from_autopsy, resumed).ratios, CHECKPOINT)
    observed = facts(autopsy=found, settings={"guard": "observe"})
    assert HARDWARE not in only(from_autopsy, observed).ratios


def test_an_autopsy_that_knows_nothing_is_no_evidence():
    assert not list(from_autopsy(autopsy("unknown")))
    assert not list(from_autopsy(facts()))


def test_history_climbing_or_calm_or_too_short():
    climbing = steps([1.0] * 30 + [5.0, 40.0, 300.0])
    assert favours(only(from_history, facts(before=climbing)).ratios, EXPLOSION)
    calm = steps([1.0, 2.0, 1.5, 0.5] * 10)
    assert only(from_history, facts(before=calm)).ratios[EXPLOSION] < 1
    assert not list(from_history(facts(before=steps([1.0, 100.0, 3.0]))))
    assert not list(from_history(facts(before=steps([1.0] * 30 + [5.0]))))


def test_a_heavy_tail_is_not_a_climb():
    tail = steps([0.1, 0.2, 30.0, 0.1, 0.2] * 8)
    assert only(from_history, facts(before=tail)).ratios[EXPLOSION] < 1


def test_slow_troubles_are_judged_over_the_whole_window():
    early = steps([1.0] * 12 + [900.0] + [0.5] * 100)
    slow = {"before": early, "trouble": [incident("zero_loss")]}
    assert "history" in {
        piece.name for piece in from_history(facts(**slow)) if piece.ratios.get(EXPLOSION, 0) > 2
    }


def test_a_falling_loss_scale_points_at_fp16():
    before = steps([1.0] * 20, loss_scale=65536.0) + steps([1.0] * 3, loss_scale=256.0)
    pieces = {piece.name: piece for piece in from_history(facts(before=before))}
    assert favours(pieces["loss_scale"].ratios, FP16)


def test_results_alone_say_which_numbers_went_bad_first():
    def row(epoch, train, val):
        return EpochRow(epoch, float(epoch), {"train/box_loss": train, "val/box_loss": val}, 0)

    nan = float("nan")
    silent = facts(watched=False, results=[row(1, 1.0, 1.0), row(2, 1.0, nan)])
    assert favours(only(from_history, silent).ratios, FP16)
    loud = facts(watched=False, results=[row(n, 1.0, 1.0) for n in range(1, 6)] + [row(6, nan, nan)])
    assert only(from_history, loud).source == "results.csv"
    assert not list(from_history(facts(watched=False, results=[row(1, 1.0, 1.0)])))


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        ({"amp": False}, False),
        ({"amp": "bf16"}, False),
        ({"amp": True, "device": "cpu"}, False),
        ({"amp": True, "device": "0"}, True),
        ({}, True),
    ],
)
def test_fp16_only_where_it_is_used(settings, possible):
    assert bool(list(of_settings(facts(settings=settings)))) != possible


@pytest.mark.parametrize(
    ("optimizer", "rate", "ratio"),
    [
        ("SGD", 0.01, 0.5),
        ("SGD", 0.9, 30.0),
        ("AdamW", 0.01, 8.0),
        ("AdamW", 0.0033, 2.5),
        ("SGD", 0.001, 0.2),
    ],
)
def test_learning_rate_against_what_the_optimizer_starts_from(optimizer, rate, ratio):
    known = facts(before=steps([1.0] * 3, lr=rate), settings={"optimizer": optimizer, "lr0": 0.5})
    assert only(learning_rate, known).ratios == {RATE: ratio}


def test_the_rate_of_auto_is_not_known_before_a_step():
    assert not list(learning_rate(facts(settings={"optimizer": "auto", "lr0": 0.01})))
    assert not list(learning_rate(facts()))


def test_gains_clipping_resolution_and_augmentation():
    def said(settings, before=None):
        pieces = of_settings(facts(settings=settings, earlier_settings={"imgsz": before}))
        return [piece.name for piece in pieces]

    assert said({"box": 750.0, "grad_clip": 0.0}) == ["loss_gain", "clipping"]
    assert not said({"box": 10.0, "cls": 0.5, "grad_clip": 10.0}) and not said({})
    assert said({"imgsz": 1280}, 640) == ["resolution"] and not said({"imgsz": 640}, 1280)
    assert said({"mixup": 0.15, "copy_paste": 0.3}) == ["augmentation"]
    assert not said({"mixup": 0.15, "copy_paste": 0.0})


def test_start():
    resumed = {"attempt": attempt("resume"), "trouble": [incident()]}
    assert favours(only(start, facts(**resumed, steps_in=0)).ratios, CHECKPOINT)
    assert only(start, facts(**resumed, steps_in=500)).ratios[CHECKPOINT] < 1
    assert not list(start(facts(**resumed, steps_in=50)))
    assert not list(start(facts(**resumed, steps_in=None)))
    fresh = facts(attempt=attempt(), trouble=[incident()], steps_in=0)
    assert only(start, fresh).ratios[CHECKPOINT] < 1
    assert not list(start(facts(attempt=attempt(model="yolov8n.pt"), trouble=[incident()], steps_in=0)))


def test_recurrence():
    once = facts(
        incidents=[incident()], trouble=[incident()], after=steps([1.0], reason="nan_loss") + steps([1.0] * 9)
    )
    assert favours(only(recurrence, once).ratios, HARDWARE)
    always = facts(
        incidents=[incident()] * 4, trouble=[incident()] * 4, after=steps([1.0] * 6, reason="nan_loss")
    )
    assert only(recurrence, always).ratios[HARDWARE] < 1
    assert not list(recurrence(facts(incidents=[incident("zero_loss")], trouble=[incident("zero_loss")])))


def test_the_same_image_in_every_bad_batch():
    bad = [incident(step=step, files=["/a.jpg", f"/{step}.jpg"]) for step in (10, 30, 70)]
    known = facts(incidents=bad, trouble=bad, settings={"images": 1000})
    pieces = {piece.name: piece for piece in recurrence(known)}
    assert "/a.jpg" in pieces["same_image"].text
    assert favours(pieces["same_image"].ratios, DATA)
    other = [incident(step=step, files=[f"/{step}.jpg"]) for step in (10, 30, 70)]
    assert "same_image" not in {piece.name for piece in recurrence(facts(incidents=other, trouble=other))}


def test_an_image_that_is_in_most_batches_anyway_is_a_weak_hint():
    bad = [incident(step=step, files=[f"/{number}.jpg" for number in range(30)]) for step in (10, 30)]
    pieces = {
        piece.name: piece for piece in recurrence(facts(incidents=bad, trouble=bad, settings={"images": 32}))
    }
    assert pieces["same_image"].ratios[DATA] == 1.0


def test_what_was_not_measured_is_said():
    assert any("did not watch" in gap for gap in missing(facts(watched=False)))
    assert any("no autopsy" in gap for gap in missing(facts()))
    assert not missing(facts(autopsy={"kind": "autopsy"}, before=steps([1.0]), in_effect=True))
