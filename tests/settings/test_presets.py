"""The guide's numbers on the guide's run; on other runs nothing is made less safe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nantui.errors import UserError
from nantui.settings.presets import (
    AT_LEAST,
    AT_MOST,
    EXACTLY,
    SAFER,
    Bound,
    Preset,
    apply,
    apply_all,
    find_presets,
    load_presets,
    magnitude,
    phase_after,
    read_preset,
)
from nantui.settings.schema import Schema
from nantui.settings.values import as_python, changed, merge

GUIDE_TABLE = [
    ("lr0", 0.01, 0.003, "explosion"),
    ("optimizer", "AdamW", "SGD", "stabler"),
    ("amp", True, False, "fp16 overflow"),
    ("warmup_epochs", 5, 10, "smoother start"),
    ("batch", 128, 64, "memory"),
    ("mixup", 0.15, 0, "aggressive augmentation"),
    ("copy_paste", 0.3, 0, "aggressive augmentation"),
    ("hsv_h", 0.03, 0.015, "aggressive augmentation"),
    ("hsv_s", 0.9, 0.7, "aggressive augmentation"),
    ("hsv_v", 0.6, 0.4, "aggressive augmentation"),
    ("save_period", 10, 5, "more restore points"),
]


@pytest.fixture(scope="module")
def presets(schema: Schema) -> dict[str, Preset]:
    return load_presets(schema)


def test_nan_safe_on_the_guides_run_is_the_guides_table(
    presets: dict[str, Preset], guide_run: dict[str, Any], schema: Schema
) -> None:
    rows = apply(presets["nan-safe"], guide_run, schema.fields)
    assert [(row.name, row.now, row.then, row.why) for row in rows] == GUIDE_TABLE
    assert not any(row.kept for row in rows)


def test_recover_on_the_guides_run(presets: dict[str, Preset], guide_run: dict[str, Any]) -> None:
    run = {
        **guide_run,
        "lrf": 0.01,
        "box": 10.0,
        "cls": 2.0,
        "warmup_epochs": 1,
        "momentum": 0.95,
        "weight_decay": 0.01,
    }
    assert changed(apply(presets["recover"], run)) == {
        "lr0": 0.005, "lrf": 0.0001, "warmup_epochs": 3, "box": 8.0, "cls": 1.5, "amp": False,
        "optimizer": "SGD",
        "momentum": 0.937, "weight_decay": 0.0005,
    }  # fmt: skip


def test_restart_on_the_guides_run(presets: dict[str, Preset], guide_run: dict[str, Any]) -> None:
    run = {
        **guide_run, "lrf": 0.01, "box": 10.0, "cls": 2.0, "dfl": 2.0, "warmup_epochs": 3, "hsv_h": 0.05,
        "hsv_s": 1.0,
        "hsv_v": 0.8, "mosaic": 1.0, "close_mosaic": 10,
    }  # fmt: skip
    assert changed(apply(presets["restart"], run)) == {
        "lr0": 0.003, "lrf": 0.00001, "warmup_epochs": 5, "amp": False, "optimizer": "SGD", "box": 7.5,
        "cls": 1.0,
        "dfl": 1.5, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "mixup": 0, "copy_paste": 0,
        "mosaic": 0.9, "batch": 64,
        "close_mosaic": 50,
    }  # fmt: skip


def test_the_ladder_and_the_small_presets(presets: dict[str, Preset], guide_run: dict[str, Any]) -> None:
    after = {**guide_run, **changed(apply(presets["nan-safe"], guide_run))}
    assert changed(apply(presets["level1"], after)) == {"lr0": 0.001}
    assert changed(apply(presets["level2"], after)) == {"imgsz": 640}
    assert changed(apply(presets["level3"], after)) == {"batch": 32}
    assert changed(apply(presets["gentle-lr"], after)) == {"lr0": 0.002}
    assert changed(apply(presets["bf16"], guide_run)) == {"amp": "bf16"}
    assert changed(apply(presets["conservative"], guide_run)) == {
        "optimizer": "SGD", "momentum": 0.9, "weight_decay": 0.0001,
    }  # fmt: skip


NUMERIC = ("lr0", "batch", "imgsz", "epochs", "mosaic", "mixup", "copy_paste", "hsv_h", "hsv_s", "hsv_v",
"degrees",
           "translate", "scale", "shear", "perspective", "flipud", "fliplr", "box", "cls", "dfl",
           "momentum")  # fmt: skip


@given(data=st.data())
def test_no_preset_raises_what_is_dangerous_on_any_run(
    data: st.DataObject, presets: dict[str, Preset]
) -> None:
    run: dict[str, Any] = {name: data.draw(st.floats(0, 1)) for name in NUMERIC}
    run |= {name: data.draw(st.integers(1, 4096)) for name in ("batch", "imgsz", "epochs")}
    run |= {"amp": data.draw(st.sampled_from([True, False, "bf16", "fp16", "fp32"])), "optimizer": "AdamW"}
    for preset in presets.values():
        for row in apply(preset, run):
            assert row.kept == (row.then == row.now)
            if row.name in NUMERIC:
                assert row.then <= row.now, preset.name
            if row.name == "amp" and run["amp"] in (False, "fp32", "bf16"):
                assert row.kept


def test_a_run_that_is_safer_keeps_its_values_and_is_told_so(
    presets: dict[str, Preset], guide_run: dict[str, Any]
) -> None:
    rows = {
        row.name: row
        for row in apply(presets["nan-safe"], {**guide_run, "lr0": 0.001111, "batch": 16, "imgsz": 640})
    }
    for name, value in {"lr0": 0.001111, "batch": 16, "imgsz": 640}.items():
        assert rows[name].kept and rows[name].then == value and rows[name].why == SAFER
    assert changed(rows.values()).keys().isdisjoint({"lr0", "batch", "imgsz"})


@pytest.mark.parametrize(
    ("name", "kind", "value", "now", "then"),
    [
        ("save_period", AT_MOST, 5, -1, 5),
        ("save_period", AT_MOST, 5, 1, 1),
        ("patience", AT_LEAST, 100, 0, 0),
        ("patience", AT_LEAST, 100, 50, 100),
        ("scale", AT_MOST, 0.5, (0.4, 1.2), 0.5),
        ("scale", AT_MOST, 0.5, (0.8, 1.2), (0.8, 1.2)),
        ("batch", AT_MOST, 64, -1, -1),
        ("batch", AT_MOST, 64, 0.7, 0.7),
        ("batch", AT_MOST, "half", 64, 32),
        ("batch", AT_MOST, "half", -1, -1),
        ("close_mosaic", AT_LEAST, 50, 0, 50),
        ("amp", EXACTLY, False, "bf16", "bf16"),
        ("amp", EXACTLY, "bf16", False, False),
        ("amp", EXACTLY, "bf16", "fp16", "bf16"),
        ("imgsz", AT_MOST, 640, [1280, 720], 640),
    ],
)
def test_bounds_know_what_the_special_values_mean(
    name: str, kind: str, value: Any, now: Any, then: Any
) -> None:
    row = Bound(name, kind, value, "because").against(now)
    assert row is not None and row.then == then and row.kept == (then == now)


@pytest.mark.parametrize(("now", "value"), [(False, False), ("fp32", False), (True, "fp16")])
def test_two_names_for_one_precision_are_no_change(now: Any, value: Any) -> None:
    assert Bound("amp", EXACTLY, value, "").against(now) is None


def test_presets_stack_and_merge_into_one_row(presets: dict[str, Preset], guide_run: dict[str, Any]) -> None:
    rows = apply_all([presets["nan-safe"], presets["level1"], presets["level3"]], guide_run)
    by_name = {row.name: row for row in rows}
    assert (by_name["lr0"].now, by_name["lr0"].then) == (0.01, 0.001)
    assert (by_name["batch"].now, by_name["batch"].then) == (128, 32)
    assert len(by_name) == len(rows)
    assert merge(rows, rows) == rows


def test_the_python_copy_runs(presets: dict[str, Preset], guide_run: dict[str, Any]) -> None:
    scope: dict[str, Any] = {}
    rows = apply(presets["nan-safe"], guide_run)
    exec(as_python(rows), scope)
    assert scope["settings"] == changed(rows) == {name: then for name, _, then, _ in GUIDE_TABLE}


def test_an_entry_that_the_installed_release_does_not_know_is_kept(guide_run: dict[str, Any]) -> None:
    preset = Preset("mine", "", "user", Path(), (Bound("cutmix", AT_MOST, 0.0, ""),))
    (row,) = apply(preset, {"cutmix": None}, known={"lr0"})
    assert row.kept and "does not know" in row.why


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("settings: {lr: {at_most: 0.1}}", "did you mean lr0"),
        ("settings: {lr0: {at_most: fast}}", "expects a number"),
        ("settings: {lr0: 0.1}", "give one of at_most"),
        ("settings: {lr0: {at_most: 0.1, at_least: 0.01}}", "give one of"),
        ("settings: {lr0: {at_most: 0.1, reason: x}}", "unknown key 'reason'"),
        ("- a\n- b", "needs `settings:`"),
        ("settings: [", "while parsing a flow node; a preset needs `settings:`"),
    ],
)
def test_a_wrong_preset_is_named_with_its_file(tmp_path: Path, schema: Schema, text: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_preset(path, schema)
    assert says in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_own_and_project_presets_are_found_and_win(
    tmp_path: Path, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    own, project, run = (
        tmp_path / "config/nantui/presets",
        tmp_path / "project/.nantui/presets",
        tmp_path / "project/runs/train",
    )
    for directory in (own, project, run):
        directory.mkdir(parents=True)
    (own / "mine.yaml").write_text("settings: {lr0: {at_most: 0.1, why: mine}}")
    (own / "both.yaml").write_text("settings: {lr0: {at_most: 0.1, why: mine}}")
    (project / "both.yaml").write_text("settings: {lr0: {at_most: 0.2, why: ours}}")
    found = load_presets(schema, run)
    assert found["mine"].source == "user" and found["both"].source == "project" and "nan-safe" in found
    with pytest.raises(UserError, match="no preset 'nope'; there are .*nan-safe"):
        find_presets(["nope"], schema, run)


def test_an_older_ultralytics_lacks_one_preset_and_not_all(schema: Schema, tmp_path: Path) -> None:
    """Before bf16 came, `amp` was true or false."""
    amp = replace(schema.fields["amp"], types=("bool",), choices=())
    older = Schema([amp if field.name == "amp" else field for field in schema.fields.values()])
    found = load_presets(older)
    assert [name for name, preset in found.items() if preset.unfit] == ["bf16"]
    assert apply(found["bf16"], {"amp": True}) == []
    assert find_presets(["nan-safe"], older)[0].bounds
    with pytest.raises(UserError, match="preset bf16: this Ultralytics does not take amp=bf16"):
        find_presets(["bf16"], older)
    (tmp_path / "mine.yaml").write_text("settings: {amp: {exactly: bf16, why: mine}}")
    with pytest.raises(UserError, match="mine.yaml: amp=bf16"):
        read_preset(tmp_path / "mine.yaml", older)


def test_every_shipped_preset_is_commented_and_gives_reasons(presets: dict[str, Preset]) -> None:
    expected = {
        "recover",
        "restart",
        "nan-safe",
        "conservative",
        "gentle-lr",
        "level1",
        "level2",
        "level3",
        "bf16",
    }
    assert expected <= presets.keys()
    for preset in presets.values():
        assert preset.path is not None and preset.path.read_text().startswith("# ")
        assert preset.title and all(bound.why for bound in preset.bounds)


def test_magnitude_orders_what_has_an_order() -> None:
    assert magnitude("optimizer", "SGD") is None
    assert magnitude("lr0", True) is None
    assert magnitude("lr0", 0.5) == 0.5


def test_a_key_that_no_preset_has_is_named(tmp_path: Path, schema: Schema) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntitel: typo\nsettings: {lr0: {at_most: 0.1}}\n")
    with pytest.raises(UserError, match=r"mine.yaml: unknown key 'titel'"):
        read_preset(path, schema)


@pytest.mark.parametrize("then", ["{before: [imgsz]}", "{epochs: 2}", "7", "{epochs: 0.5, x: 1}"])
def test_a_wrong_then_is_named(tmp_path: Path, schema: Schema, then: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"settings: {{imgsz: {{at_most: 640}}}}\nthen: {then}\n")
    with pytest.raises(UserError, match=r"mine.yaml: then: needs"):
        read_preset(path, schema)


def test_smaller_images_are_followed_by_the_guides_fine_tuning(schema: Schema) -> None:
    """The guide's run: 50 epochs at 1280 with lr0 0.001, a quarter of its 200."""
    level2 = load_presets(schema)["level2"]
    guide = {"imgsz": 1280, "epochs": 200, "lr0": 0.003}
    phase = phase_after([level2.then], guide, apply(level2, guide))
    assert phase is not None and dict(phase.settings) == {"imgsz": 1280, "epochs": 50, "lr0": 0.001}
    gentle = {**guide, "lr0": 0.0005}
    phase = phase_after([level2.then], gentle, apply(level2, gentle))
    assert phase is not None and dict(phase.settings) == {"imgsz": 1280, "epochs": 50}, "no rate is raised"
    small = {**guide, "imgsz": 640}
    assert phase_after([level2.then, None], small, apply(level2, small)) is None, "nothing was given up"
