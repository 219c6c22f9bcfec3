"""Effective values against Ultralytics' own schedule and choice, and what lint says about a run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nantui.settings.gpu_memory import CONTEXT_GB, Measured, fit, largest_batch, least_gb, predict, stays_gb
from nantui.settings.lint import Known, auto_optimizer, lint, lr_at
from nantui.settings.values import Change, changed


def test_the_rate_at_an_epoch_is_ultralytics_own(ultralytics_says: dict[str, Any]) -> None:
    for cos, expected in zip((False, True), ultralytics_says["rates"], strict=True):
        args = {"lr0": 0.005, "lrf": 0.01, "epochs": 200, "cos_lr": cos}
        assert [lr_at(args, epoch) for epoch in (0, 1, 130, 199, 200)] == pytest.approx(expected)


def test_the_guides_example_of_a_rate_in_effect() -> None:
    assert lr_at({"lr0": 0.005, "lrf": 0.0001, "epochs": 200}, 130) == pytest.approx(0.00175, rel=1e-3)


def test_auto_resolves_as_ultralytics_does(ultralytics_says: dict[str, Any]) -> None:
    args = {"optimizer": "auto", "lr0": 0.01, "momentum": 0.937, "batch": 64, "nbs": 64, "epochs": 100}
    for (classes, images), (name, lr0) in zip(
        ((6, 3200), (80, 3200), (6, 12800)), ultralytics_says["auto"], strict=True
    ):
        assert auto_optimizer(args, classes, images)[:2] == (name, pytest.approx(lr0))


def test_auto_without_the_data_is_not_guessed() -> None:
    name, rate, _ = auto_optimizer({"optimizer": "auto", "lr0": 0.01, "batch": 16})
    assert math.isnan(rate) and name == "auto"


RUN: dict[str, Any] = {
    "optimizer": "SGD", "lr0": 0.01, "lrf": 0.01, "amp": True, "batch": 16, "imgsz": 640, "epochs": 200,
    "close_mosaic": 10, "mosaic": 1.0, "warmup_epochs": 3, "save_period": 5, "rewarmup": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "known", "name", "says", "instead"),
    [
        ({"optimizer": "auto"}, Known(images=100, classes=6), "optimizer", "AdamW at 0.001", {}),
        ({"lrf": 0.00001, "lr0": 0.003, "cos_lr": True}, Known(), "lrf", "2e-07, which changes", {}),
        ({"data": "shapes"}, Known(), "data", "names no YAML file", {}),
        ({"cls": 1e38}, Known(), "cls", "2e+38 times its default: set cls=0.5", {"cls": 0.5}),
        ({"lr0": 0.2}, Known(), "lr0", "20 times the usual of SGD", {"lr0": 0.01}),
        ({"lr0": 0.011, "optimizer": "AdamW"}, Known(), "lr0", "set lr0=0.001, or", {"lr0": 0.001}),
        ({"amp": False}, Known(on_gpu=True), "amp", "70 %", {"amp": "bf16"}),
        ({"amp": False}, Known(on_gpu=True, bf16=False), "amp", "twice the memory", {}),
        ({"amp": False}, Known(on_gpu=True), "amp", "where the GPU supports it", {"amp": "bf16"}),
        ({"amp": "bf16"}, Known(on_gpu=False), "amp", "does not work on the CPU", {"amp": False}),
        ({"amp": "bf16"}, Known(bf16=False), "amp", "does not work on this GPU", {"amp": False}),
        ({"amp": "bf16"}, Known(on_gpu=True), "amp", "is not known here", {}),
        ({"batch": 10}, Known(devices=4), "batch", "no multiple of 4", {"batch": 8}),
        ({"batch": -1}, Known(devices=4), "batch", "AutoBatch", {}),
        ({"close_mosaic": 50}, Known(epoch=160), "close_mosaic", "40 epochs left", {}),
        ({"imgsz": 650}, Known(), "imgsz", "trains at 672", {"imgsz": 672}),
        ({"imgsz": 650}, Known(), "imgsz", "stride 32 (assumed", {"imgsz": 672}),
        ({"imgsz": 672}, Known(stride=64), "imgsz", "stride 64; Ultralytics trains at 704", {"imgsz": 704}),
        ({"imgsz": [640, 480]}, Known(), "imgsz", "one number", {"imgsz": 640}),
        ({}, Known(epoch=131), "warmup_epochs", "rewarmup", {"rewarmup": 100}),
        ({}, Known(epoch=130), "lr0", "0.00357", {}),
        ({"save_period": -1}, Known(), "save_period", "no restore points", {"save_period": 5}),
        ({"imgsz": 1280}, Known(measured=Measured(30, 80), now=RUN), "imgsz", "about 120 GB", {"batch": 10}),
        ({"batch": 64}, Known(measured=Measured(30, 80), now=RUN), "batch", "about 120 GB", {"batch": 42}),
        ({"epochs": 100}, Known(epoch=100), "epochs", "raise epochs", {"epochs": 150}),
    ],
)
def test_lint_gives_the_reason_and_what_to_set(
    changes: dict[str, Any], known: Known, name: str, says: str, instead: dict[str, Any]
) -> None:
    found = [
        finding
        for finding in lint({**RUN, **changes}, known)
        if finding.name == name and says in finding.text
    ]
    assert len(found) == 1 and dict(found[0].instead) == instead


@pytest.mark.parametrize("found", [
    {"data": "shapes.yaml"}, {"data": "/a/b"}, {"data": None}, {"data": "imagenette", "task": "classify"},
])  # fmt: skip
def test_data_that_may_be_there_is_not_warned_of(found: dict[str, Any]) -> None:
    assert lint({**RUN, **found}) == []


def test_the_rate_is_judged_by_what_is_in_effect() -> None:
    for calm in (
        {"lr0": 0.1},
        {"lr0": 0.01, "optimizer": "AdamW"},
        {"lr0": 0.003, "lrf": 0.00001},
        {"epochs": "x"},
    ):
        assert lint({**RUN, **calm}) == [], "on a straight line the last of 200 epochs has a 200th of lr0"
    assert [one.name for one in lint({**RUN, "lr0": 5.0, "optimizer": "auto"})] == ["optimizer"]


def test_a_sound_run_gives_no_warning() -> None:
    assert lint(RUN, Known(on_gpu=True, bf16=True, measured=Measured(30, 80), now=RUN)) == []
    assert lint({**RUN, "rewarmup": 100}, Known(epoch=150))[0].name == "lr0"


def test_a_remedy_that_would_not_fit_comes_with_its_batch_cut() -> None:
    rows = fit(
        [Change("amp", True, False, "overflow")], {**RUN, "batch": 16}, Measured(22.5, 40.0, devices=2)
    )
    assert changed(rows) == {"amp": False, "batch": 14}
    then = {**RUN, **changed(rows)}
    assert predict(Measured(22.5, 40.0), RUN, then) <= 40.0 * 0.95
    assert "memory" in rows[-1].why


def test_what_fits_for_want_of_memory_alone_is_neither_cut_nor_warned_of() -> None:
    """In fp32 the allocator reserves 11 % more than tensors fill, and gives it back where memory is short."""
    card = Measured(5.55, 24.0, weights_gb=0.0965, filled=True)
    off = [Change("amp", True, False, "overflow")]
    for batch, fits in ((35, True), (36, False)):
        then = {**RUN, "batch": batch}
        assert predict(card, RUN, {**then, "amp": False}) > card.usable_gb
        assert (fit(off, then, card, RUN) == off) == fits
        found = lint({**then, "amp": False}, Known(measured=card, now=RUN))
        assert any("the GPU has 24 GB" in one.text for one in found) != fits


@pytest.mark.parametrize(
    ("changes", "allocated", "reserved"),
    [
        ({"batch": 8}, 2.96, 3.06), ({"batch": 32}, 10.59, 11.16), ({"batch": 64}, 20.84, 21.82),
        ({"imgsz": 960}, 11.85, 12.56), ({"imgsz": 1280, "batch": 8}, 10.59, 11.16),
        ({"imgsz": 1280}, 20.84, 21.78), ({"imgsz": 1280, "batch": 32}, 41.28, 43.11),
        ({"amp": "bf16"}, 5.55, 5.79), ({"amp": False}, 10.28, 11.45), ({"optimizer": "AdamW"}, 5.63, 5.79),
        ({"imgsz": 1280, "amp": False}, 39.91, 44.18),
    ],
)  # fmt: skip
def test_peaks_measured_on_an_h200_are_predicted_from_one_of_them(
    changes: dict[str, Any], allocated: float, reserved: float
) -> None:
    """yolov8m from 640 x 16 fp16 SGD, where tensors filled 5.55 GiB (docs/gpu-results.md)."""
    own = Measured(5.55, 80.0, weights_gb=0.0965, filled=True)
    predicted = predict(own, RUN, {**RUN, **changes})
    assert predicted == pytest.approx(reserved, rel=0.022)
    assert predict(Measured(5.55, 80.0, weights_gb=0.0965), RUN, {**RUN, **changes}) == pytest.approx(
        allocated, rel=0.012
    )


@pytest.mark.parametrize(
    ("room_gb", "changes", "really"),
    [
        (24.0, {"imgsz": 640}, 72), (40.0, {"imgsz": 1280}, 30), (23.3, {"imgsz": 640}, 71),
        (39.3, {"imgsz": 1280}, 30), (23.3, {"imgsz": 640, "amp": False}, 36),
    ],
)  # fmt: skip
def test_the_largest_batch_that_really_fitted_is_nearly_reached_and_not_exceeded(
    room_gb: float, changes: dict[str, Any], really: int
) -> None:
    """On the same GPU, PyTorch held to `room_gb` (docs/gpu-results.md)."""
    card, then = Measured(5.55, room_gb + CONTEXT_GB, weights_gb=0.0965, filled=True), {**RUN, **changes}
    assert 0.95 * really < largest_batch(card, RUN, then) <= really
    assert least_gb(card, RUN, {**then, "batch": largest_batch(card, RUN, then)}) <= room_gb


def test_a_remedy_that_fits_or_needs_less_is_left_alone() -> None:
    off = [Change("amp", True, False, "overflow")]
    assert fit(off, RUN, Measured(22.5, 80.0)) == off
    smaller = [Change("imgsz", 640, 320, "")]
    assert fit(smaller, RUN, Measured(79.0, 80.0)) == smaller
    assert fit(off, RUN, None) == off


def test_weights_ema_and_optimizer_do_not_grow_with_the_batch() -> None:
    large = Measured(10.0, 24.0, weights_gb=1.0)
    assert stays_gb(large, RUN) == 4.5 and stays_gb(large, {**RUN, "optimizer": "AdamW"}) == 5.5
    assert predict(large, RUN, {**RUN, "batch": 32}) == pytest.approx(4.5 + 2 * 5.5)
    assert predict(large, RUN, {**RUN, "imgsz": 1280}) == pytest.approx(4.5 + 4 * 5.5)
    assert predict(large, RUN, {**RUN, "optimizer": "AdamW"}) == pytest.approx(11.0)
    assert predict(large, {**RUN, "multi_scale": 0.0}, {**RUN, "multi_scale": 0.5}) == pytest.approx(
        4.5 + 2.25 * 5.5
    )


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_the_largest_batch_fits_and_one_more_would_not(devices: int) -> None:
    measured = Measured(10.0, 24.0, devices=devices, weights_gb=0.4)
    batch = largest_batch(measured, RUN, RUN)
    assert batch % devices == 0
    assert predict(measured, RUN, {**RUN, "batch": batch}) <= measured.usable_gb
    assert predict(measured, RUN, {**RUN, "batch": batch + devices}) > measured.usable_gb
