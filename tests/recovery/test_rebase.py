"""Rebase against live optimizers: what stock Ultralytics has in effect after resuming our file must be what
it has in a fresh training with the same arguments.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nantui.checkpoint.catalog import Catalog
from nantui.errors import UserError
from nantui.recovery.plan import make_plan
from nantui.recovery.resume_settings import momentum_of_auto
from nantui.recovery.rollback import roll_back
from tests.recovery import live
from tests.recovery.conftest import SETTINGS, train

CHANGES: dict[str, dict[str, Any]] = {
    "another optimizer": {
        "optimizer": "SGD", "lr0": 0.003, "lrf": 0.00001, "momentum": 0.9, "weight_decay": 0.0001,
        "amp": False, "box": 8.0, "cls": 1.5, "dfl": 1.2, "hsv_h": 0.01, "hsv_s": 0.5, "hsv_v": 0.3,
        "mixup": 0.0, "epochs": 15,
    },
    "the same optimizer": {
        "lr0": 0.002, "momentum": 0.85, "weight_decay": 0.002, "batch": 4, "nbs": 16, "imgsz": 96,
    },
    "eight groups": {"optimizer": "MuSGD", "lr0": 0.004, "momentum": 0.8, "weight_decay": 0.01},
    "auto": {"optimizer": "auto", "lr0": 0.5, "cos_lr": True},
    "an adaptive one": {"optimizer": "RMSprop", "lr0": 0.0005, "patience": 7},
}  # fmt: skip
FROM_THE_START = (
    "optimizer",
    "groups",
    "base_lrs",
    "amp",
    "batch",
    "imgsz",
    "epochs",
    "gains",
    "hsv",
    "mixup",
)


@pytest.mark.parametrize("name", CHANGES)
def test_stock_resumes_with_what_a_fresh_training_would_have(
    name: str, healthy: Path, room: Path, tmp_path: Path, rebase_here: Callable[..., Any]
) -> None:
    changes = CHANGES[name]
    roll_back(make_plan(healthy, settings=changes), by="me")
    resumed = live.first_step(str(healthy / "weights/last.pt"), resume=True)
    data = {"data": str(room / "data/data.yaml"), "project": str(tmp_path), "name": "fresh"}
    fresh = live.first_step(str(room / "tiny.yaml"), **{**SETTINGS, **changes, **data})
    assert {key: resumed[key] for key in FROM_THE_START} == {key: fresh[key] for key in FROM_THE_START}
    assert resumed["epoch"] == 4 and resumed["save_dir"] == healthy
    assert len({group["weight_decay"] for group in resumed["groups"]}) > 1, "never one value over all groups"
    same = changes.get("optimizer", "AdamW") in ("AdamW", "auto")
    assert (resumed["state"] > 0) == same or resumed["state"] == fresh["state"]
    assert resumed["stopper"][2] == changes.get("patience", SETTINGS["patience"])


def test_without_a_rebase_stock_ignores_the_same_changes(healthy: Path) -> None:
    """The reason for all this: pinned, so that a release that honours them is noticed."""
    ignored = live.first_step(
        str(healthy / "weights/last.pt"), resume=True, lr0=0.003, optimizer="SGD", momentum=0.5
    )
    assert ignored["optimizer"] == "AdamW" and ignored["base_lrs"] == [0.01] * 3
    assert ignored["groups"][0]["betas"][0] == pytest.approx(0.937)


def test_a_process_that_rebases_does_not_import_what_compiles_models(healthy: Path, tmp_path: Path) -> None:
    """It takes longer than all the rest."""
    request = {
        "source": str(healthy / "weights/last.pt"),
        "target": str(tmp_path / "t.pt"),
        "run": str(healthy),
    }
    (tmp_path / "request.json").write_text(json.dumps({**request, "train": {"lr0": 0.003}}))
    code = "import sys; from nantui.worker.checkpoints.rebase import main; print(main(sys.argv[1:]),"
    words = [sys.executable, "-c", f"{code} 'torch._dynamo' in sys.modules)", str(tmp_path / "request.json")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["0 False"], done.stdout + done.stderr


def test_state_is_kept_where_the_optimizer_stays_and_repaired_where_it_is_not_finite(
    healthy: Path, rebase_here: Callable[..., Any]
) -> None:
    import torch

    path = healthy / "weights/last.pt"
    checkpoint = torch.load(path, weights_only=False)
    state = checkpoint["optimizer"]["state"]
    first, second = sorted(state)[:2]
    state[first]["exp_avg"].view(-1)[0] = float("inf")
    untouched = state[second]["exp_avg"].clone()
    torch.save(checkpoint, path)
    (healthy / "weights/epoch3.pt").unlink()
    plan = make_plan(healthy, settings={"lr0": 0.001})
    assert plan.restore is not None and plan.restore.name == "last.pt"
    assert any("begins anew" in warning for warning in plan.warnings)
    done = roll_back(plan, by="me")
    after = torch.load(path, weights_only=False)["optimizer"]
    assert first not in after["state"] and len(after["state"]) == len(state) - 1
    assert torch.equal(after["state"][second]["exp_avg"], untouched)
    assert any("1 parameters had non-finite" in note for note in done.notes)
    assert live.first_step(str(path), resume=True)["base_lrs"] == [0.001] * 3


@pytest.fixture(scope="module")
def auto_original(room: Path) -> Path:
    return train(room, "auto", ended=2, optimizer="auto", lr0=0.01, mixup=0.0)


@pytest.mark.parametrize("asked", [{"lr0": 0.005}, {"lr0": 0.005, "momentum": 0.937}])
def test_the_momentum_that_auto_chose_is_kept_and_shown_unless_another_is_asked_for(
    auto_original: Path, tmp_path: Path, rebase_here: Callable[..., Any], asked: dict[str, float]
) -> None:
    """`auto` builds AdamW with 0.9 and leaves 0.937 in the arguments, also in the checkpoint's."""
    run = Path(shutil.copytree(auto_original, tmp_path / "auto"))
    plan = make_plan(run, settings=asked)
    rows = {row.name: row for row in plan.settings}
    expected = asked.get("momentum", 0.9)
    assert (rows["momentum"].now, rows["momentum"].then) == (0.9, expected)
    assert rows["momentum"].kept == ("momentum" not in asked) and plan.in_effect["momentum"] == 0.9
    roll_back(plan, by="me")
    seen = live.first_step(str(run / "weights/last.pt"), resume=True)
    assert {group["betas"][0] for group in seen["groups"]} == {expected}
    assert seen["base_lrs"] == [0.005] * 3
    again = make_plan(run, settings={"lr0": 0.004})
    assert again.in_effect["momentum"] == expected and [row.name for row in again.settings] == ["lr0"]


def test_the_file_itself_tells_a_momentum_that_no_argument_says() -> None:
    """Once stock Ultralytics has resumed, nothing says any more that `auto` chose."""
    from nantui.worker.checkpoints.optimizer_state import momentum_held

    adam, sgd = {"param_groups": [{"betas": (0.9, 0.999)}]}, {"param_groups": [{"momentum": 0.85}]}
    assert momentum_held(adam, {"warmup_epochs": 3.0}) == 0.9
    assert momentum_held(sgd, {"warmup_epochs": 0.0}) == 0.85
    assert momentum_held(sgd, {"warmup_epochs": 3.0}) is momentum_held(None, {}) is None


@pytest.mark.parametrize(
    ("settings", "live", "expected"),
    [
        ({"optimizer": "AdamW"}, {}, 0.9),
        ({"optimizer": "AdamW"}, {"optimizer": "AdamW", "momentum": 0.88}, 0.88),
        ({"optimizer": "MuSGD", "warmup_epochs": 3.0}, {"optimizer": "AdamW", "momentum": 0.88}, 0.937),
        ({"optimizer": "MuSGD", "warmup_epochs": 0}, {}, 0.9),
    ],
)
def test_momentum_in_effect_after_auto(
    settings: dict[str, Any], live: dict[str, Any], expected: float
) -> None:
    assert momentum_of_auto({"momentum": 0.937, **settings}, live) == expected


def test_a_collapsed_or_foreign_loss_scale_begins_anew() -> None:
    from nantui.worker.checkpoints.rebase import _scaler

    saved = {"scale": 1024.0, "growth_factor": 2.0}
    assert _scaler(saved, True, "fp16") == saved
    assert _scaler({**saved, "scale": float("inf")}, True, True) == {}
    assert _scaler({**saved, "scale": 0.0}, True, True) == {}
    assert _scaler(saved, True, "bf16") == {} == _scaler(saved, True, False)
    assert _scaler({}, False, True) == {}


def test_what_ultralytics_refuses_is_refused_before_anything_moves(
    healthy: Path, rebase_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nantui.settings.schema import Field

    monkeypatch.setattr(Field, "check", lambda self, value: value)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in healthy.rglob("*") if path.is_file())
    with pytest.raises(ValueError, match="lr0"):
        roll_back(make_plan(healthy, settings={"lr0": 7.0}), by="me")
    left = [path for path in healthy.rglob("*") if path.is_file() and "nantui" not in path.parts]
    assert (
        sorted((path.name, path.stat().st_mtime_ns) for path in left if not path.name.startswith("."))
        == before
    )


@pytest.mark.parametrize(("settings", "names"), [({"imgsz": 96}, ("imgsz",)), ({"lr0": 0.001}, ())])
def test_the_record_starts_again_only_when_fitness_is_no_longer_comparable(
    healthy: Path, rebase_here: Callable[..., Any], settings: dict[str, Any], names: tuple[str, ...]
) -> None:
    import torch

    before = torch.load(healthy / "weights/epoch3.pt", weights_only=False)
    best = healthy / "weights/best.pt"
    best.write_bytes((healthy / "weights/epoch2.pt").read_bytes())
    checkpoint = torch.load(best, weights_only=False)
    checkpoint["train_metrics"]["fitness"] = 9.0
    torch.save(checkpoint, best)
    plan = make_plan(healthy, settings=settings)
    assert plan.record_ends == names
    roll_back(plan, by="me")
    after = torch.load(healthy / "weights/last.pt", weights_only=False)
    if names:
        assert after["best_fitness"] is None and after["stopper"] == {"best_fitness": 0.0, "best_epoch": 4}
        assert [path.name for path in best.parent.glob("best*")] == ["best_imgsz64_epoch3.pt"]
    else:
        assert after["best_fitness"] == 9.0 and after["stopper"] == {"best_fitness": 9.0, "best_epoch": 3}
        assert best.exists()
    assert before["epoch"] == after["epoch"] == 3 and before["updates"] == after["updates"]


def test_a_file_with_unknown_code_is_loaded_only_once_allowed_by_name(
    healthy: Path, rebase_here: Callable[..., Any]
) -> None:
    import torch

    path = healthy / "weights/last.pt"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["mine"] = Unknown()
    torch.save(checkpoint, path)
    (healthy / "weights/epoch3.pt").unlink()
    name = f"{Unknown.__module__}.{Unknown.__qualname__}"
    with pytest.raises(UserError, match=f"allow it by name with --allow .*{name}"):
        make_plan(healthy, to="last.pt", settings={"lr0": 0.001})
    names = Catalog(path.parent).verdict(path).names_to_allow
    assert name in names
    plan = make_plan(healthy, to="last.pt", settings={"lr0": 0.001}, allow=names)
    with pytest.raises(UserError, match="last.pt is unreadable"):
        roll_back(plan, by="me")
    assert roll_back(plan, by="me", allow=names).mode == "resume"


class Unknown:
    """A user's own class inside a checkpoint."""


def test_a_revived_emas_counter_follows_the_steps_or_is_called_a_guess(
    finished: Path, rebase_here: Callable[..., Any]
) -> None:
    import torch
    from ultralytics.cfg import get_cfg

    from nantui.worker.checkpoints.optimizer_state import updates_until

    done = roll_back(make_plan(finished, settings={"epochs": 6}), by="me")
    revived = torch.load(finished / "weights/last.pt", weights_only=False)
    images = len([*(Path(revived["train_args"]["data"]).parent / "images/train").iterdir()])
    steps = 3 * images / SETTINGS["batch"]
    assert steps / 2 <= revived["updates"] <= 2 * steps
    assert "EMA's counter" in " ".join(done.notes) and "guess" not in " ".join(done.notes)
    gone = get_cfg(overrides={**SETTINGS, "data": str(finished / "gone.yaml"), "task": "detect"})
    assert "a guess" in updates_until(gone, 3)[1]


def test_a_step_point_that_would_not_fit_the_changed_settings_is_taken_out_and_that_is_said():
    """The worker refuses one of another number of processes or data set; its weights are as good as ever."""
    from types import SimpleNamespace

    from nantui.run.points import PART
    from nantui.worker.checkpoints.rebase import _without_misfit

    def after(changed, epoch=4, **args):
        checkpoint = {PART: {"training": {"world_size": 1, "data": "/d.yaml"}}}
        now = SimpleNamespace(**{"device": "0", "data": "/d.yaml", **args})
        return _without_misfit(checkpoint, changed, now, epoch), PART in checkpoint

    assert after({"lr0": 0.1}, device="0,1") == ([], True), "who changed no device has the one from before"
    assert after({"device": "1"}, device="1") == ([], True)
    (said,), there = after({"device": "0,1"}, device="0,1")
    assert said == "the epoch begins again (processes: 1 there, 2 here)" and not there
    (said,), there = after({"data": "/other.yaml"}, data="/other.yaml")
    assert "data set: /d.yaml there, /other.yaml here" in said and not there
    with pytest.raises(ValueError, match="stopped in its first epoch"):
        after({"device": "0,1"}, epoch=0, device="0,1")
    assert _without_misfit({}, {"device": "0,1"}, SimpleNamespace(device="0,1"), 4) == []
