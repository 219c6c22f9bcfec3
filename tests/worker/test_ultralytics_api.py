"""The facts about Ultralytics that the worker rests on, pinned against the installed version."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nantui.run.spec import OURS_DEFAULTS
from nantui.worker import ultralytics_api, validation_precision
from nantui.worker.trainer import guarded


@pytest.fixture(scope="module")
def source() -> str:
    return inspect.getsource(ultralytics_api.base_trainer())


def body(name: str) -> str:
    return inspect.getsource(getattr(ultralytics_api.base_trainer(), name))


def test_a_step_is_unscale_clip_step_update_zero_ema():
    names = ("unscale_", "clip_grad_norm_", "scaler.step", "scaler.update", "zero_grad", "ema.update")
    places = [body("optimizer_step").index(name) for name in names]
    assert places == sorted(places)
    assert f"max_norm={OURS_DEFAULTS['grad_clip']}" in body("optimizer_step")


def test_the_loop_calls_what_the_guard_overrides(source):
    for call in (
        "self.optimizer_step()",
        "self.preprocess_batch(batch)",
        "self.validate()",
        "self.save_model()",
    ):
        assert call in body("_do_train"), call
    for event in ("on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_fit_epoch_end"):
        assert f'run_callbacks("{event}")' in body("_do_train"), event
    assert "self._handle_nan_recovery(epoch)" in body("_do_train")
    assert 'run_callbacks("on_pretrain_routine_end")' in body("_setup_train")


def test_the_optimizer_steps_before_the_batch_ends_and_outside_the_memory_retry():
    loop = body("_do_train")
    assert loop.index("except RuntimeError") < loop.index("self.optimizer_step()")
    assert loop.index("self.optimizer_step()") < loop.index('run_callbacks("on_train_batch_end")')


def test_the_running_mean_is_kept_in_tloss_from_loss_items():
    assert re.search(r"self\.tloss = \(\s*self\.loss_items", body("_do_train"))
    assert "(self.tloss[k] * i + v) / (i + 1)" in body("_do_train")


def test_saving_uses_wdir_last_and_best_and_the_save_period():
    saving = body("save_model")
    assert "self.last.write_bytes" in saving and "self.best.write_bytes" in saving
    assert 'self.wdir / f"epoch{self.epoch}.pt"' in saving
    assert "self.epoch % self.save_period == 0" in saving


def test_the_final_strip_is_a_function_of_the_trainers_module_that_can_write_elsewhere():
    from ultralytics.engine import trainer

    assert "strip_optimizer(self.last)" in body("final_eval")
    assert "strip_optimizer(self.best, updates=" in body("final_eval")
    assert list(inspect.signature(trainer.strip_optimizer).parameters) == ["f", "s", "updates"]


def test_a_trainer_that_spawns_ranks_says_so_before_it_does():
    assert "self.ddp = world_size > 1 and LOCAL_RANK == -1" in body("__init__")
    assert body("train").index("if self.ddp:") < body("train").index("generate_ddp_command(self)")


def test_the_run_directory_comes_from_save_dir_after_check_resume():
    making = body("__init__")
    assert making.index("self.check_resume(") < making.index("get_save_dir(self.args)")


def test_a_fresh_ddp_spawn_removes_the_run_directory_through_shutil():
    from ultralytics.utils import dist

    assert "shutil.rmtree(trainer.save_dir)" in inspect.getsource(dist.generate_ddp_command)


def test_resume_takes_the_checkpoints_settings_except_a_few():
    assert "ckpt_args" in body("check_resume") and '"save_dir"' in body("check_resume")


def test_the_scaler_keeps_its_scale_where_we_read_it():
    assert "self._scale" in inspect.getsource(torch.amp.GradScaler._lazy_init_scale_growth_tracker)
    assert list(inspect.signature(torch.amp.GradScaler.update).parameters) == ["self", "new_scale"]


def test_a_step_is_taken_ahead_only_where_all_that_it_changes_is_known(monkeypatch):
    from ultralytics.utils.torch_utils import ModelEMA

    class Own(torch.optim.SGD):
        pass

    def asked(optimizer: Any = torch.optim.SGD, scaled: bool = False, hours: float | None = None) -> bool:
        model = torch.nn.Linear(2, 2)
        trainer: Any = SimpleNamespace(
            optimizer=optimizer(model.parameters(), lr=0.1),
            ema=ModelEMA(model),
            device=torch.device("cuda"),
            scaler=SimpleNamespace(is_enabled=lambda: scaled),
            args=SimpleNamespace(time=hours),
        )
        return bool(ultralytics_api.step_can_be_taken_back(trainer))

    def followed(*args: Any, **options: Any) -> torch.optim.Optimizer:
        made = torch.optim.SGD(*args, **options)
        made.register_step_post_hook(lambda *of_the_step: None)
        return made

    assert asked() and asked(hours=1.0)
    assert not asked(Own) and not asked(followed) and not asked(scaled=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert asked() and not asked(hours=1.0)


def test_validation_can_be_told_where_to_run_on_the_cpu():
    from ultralytics.engine import validator

    assert "AutoBackend(" in inspect.getsource(validator.BaseValidator.__call__)
    assert hasattr(validator, "get_torch_device_backend")


def test_transform_settings_are_where_in_effect_reads_them():
    from ultralytics.data import augment

    samples = {
        "RandomPerspective": augment.RandomPerspective(degrees=3.0, shear=2.0),
        "RandomHSV": augment.RandomHSV(hgain=0.1, sgain=0.2, vgain=0.3),
        "MixUp": augment.MixUp(None, p=0.4),
        "CopyPaste": augment.CopyPaste(p=0.5),
    }
    for name, transform in samples.items():
        for attribute in ultralytics_api.TRANSFORM_SETTINGS[name].values():
            assert isinstance(getattr(transform, attribute), (int, float)), (name, attribute)


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify", "semantic", "depth"])
def test_every_tasks_trainer_can_be_guarded(task):
    from ultralytics import YOLO

    trainer = YOLO.task_map.fget(YOLO.__new__(YOLO))[task]["trainer"]
    assert issubclass(guarded(trainer, session=None), trainer)
    assert not ultralytics_api.has_own_step(trainer)


def test_rt_detr_world_and_yoloe_use_the_common_step():
    from ultralytics.models.rtdetr.train import RTDETRTrainer
    from ultralytics.models.yolo.world.train import WorldTrainer
    from ultralytics.models.yolo.yoloe.train import YOLOETrainer

    assert not any(
        ultralytics_api.has_own_step(trainer) for trainer in (RTDETRTrainer, WorldTrainer, YOLOETrainer)
    )


def test_an_epochs_validation_takes_its_precision_from_amp_alone_and_weights_stay_in_fp32():
    from ultralytics.engine.validator import BaseValidator

    source = inspect.getsource(BaseValidator.__call__)
    assert '16 if (self.device.type != "cpu" and trainer.amp) else None' in source
    assert source.count("trainer.amp") == 1 and "fp16=self.args.quantize == 16" in source
    assert "bar = TQDM(self.dataloader" in source and "preds = self.postprocess(preds)" in source
    assert not validation_precision.halves_in_place()
    assert hasattr(BaseValidator, "gather_stats")


def test_the_best_fitness_is_taken_right_after_the_validator_and_saved_as_half():
    assert body("validate").index("metrics = self.validator(self)") < body("validate").index(
        "self.best_fitness ="
    )
    assert "deepcopy(ema).half()" in body("save_model") and "nan_to_num_" in body("save_model")
    assert "self.metrics = self.validator(model=model)" in body("final_eval")


def test_the_rate_of_the_weights_is_not_that_of_biases_in_their_warm_up():
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    from nantui.worker.checkpoints.optimizer_state import fresh_optimizer

    args = get_cfg(overrides={"optimizer": "AdamW", "lr0": 0.001})
    optimizer = fresh_optimizer(DetectionModel("yolov8n.yaml", verbose=False), args)
    for group in optimizer.param_groups:
        if group["param_group"] == "bias":
            group["lr"] = args.warmup_bias_lr
    assert max(group["lr"] for group in optimizer.param_groups) == 0.1
    assert ultralytics_api.rate_of_weights(optimizer) == 0.001
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    of_8_3 = [{"params": [one], "lr": rate} for one, rate in zip(parameters, (0.1, 0.01, 0.02), strict=True)]
    assert ultralytics_api.rate_of_weights(torch.optim.SGD(of_8_3)) == 0.02
    assert ultralytics_api.rate_of_weights(torch.optim.SGD(parameters, lr=0.3)) == 0.3


def test_a_checkpoint_below_a_path_with_an_apostrophe_is_loaded(tmp_path):
    from ultralytics.nn.tasks import torch_safe_load

    place = tmp_path / "o'brien" / "last.pt"
    place.parent.mkdir()
    torch.save({"model": None, "epoch": 7}, place)
    ultralytics_api.take_paths_as_they_are()
    checkpoint, _ = torch_safe_load(str(place))
    assert checkpoint["epoch"] == 7
