"""The guide's own run, and the schema of the installed Ultralytics."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from typing import Any

import pytest

from nantui.settings.schema import Schema
from tests.shared import Shared

TEXTS = [
    "1",
    "1.5",
    "1e-5",
    "True",
    "none",
    "[1, 2]",
    "(1,2)",
    "cpu",
    "a/b.yaml",
    "'q'",
    "0,1",
    "-1",
    "{}",
    "1 2",
]
ASK = """
import json, sys, types
import torch
from ultralytics.cfg import parse_key_value_pair
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import DEFAULT_CFG_DICT
trainer = BaseTrainer.__new__(BaseTrainer)
trainer.epochs = 200
rates, auto = [], []
for cos in (False, True):
    trainer.args = types.SimpleNamespace(cos_lr=cos, lrf=0.01)
    trainer.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.005)
    trainer._setup_scheduler()
    rates.append([0.005 * trainer.lf(epoch) for epoch in (0, 1, 130, 199, 200)])
model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))
model.model = [model]
for nc, iterations in ((6, 5000), (80, 5000), (6, 20000)):
    trainer.args = types.SimpleNamespace(lr0=0.01, optimizer="auto", warmup_bias_lr=0.1)
    trainer.data = {"nc": nc}
    trainer.build_optimizer(model, "auto", iterations=iterations)
    auto.append([trainer.args.optimizer, trainer.args.lr0])
values = repr([parse_key_value_pair(f"{k}={t}")[1] for k in ("lr0", "name") for t in json.loads(sys.argv[1])])
said = {"rates": rates, "auto": auto, "values": values, "defaults": DEFAULT_CFG_DICT}
print(json.dumps(said))
"""


@pytest.fixture(scope="session")
def ultralytics_says(shared: Shared, torch_python: str) -> dict[str, Any]:
    """What the installed release itself does, asked once in a process of its own."""
    if importlib.util.find_spec("torch") is None:  # not imported here: it costs seconds
        pytest.skip("torch is not installed")
    answer = shared.root / "ultralytics_says"

    def ask() -> None:
        words = [torch_python, "-c", ASK, json.dumps(TEXTS)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        answer.write_text(done.stdout.splitlines()[-1])

    return {**json.loads(shared.made(answer.name, ask).read_text()), "texts": TEXTS}


@pytest.fixture(scope="session")
def schema() -> Schema:
    return Schema.load()


@pytest.fixture
def guide_run(schema: Schema) -> dict[str, Any]:
    """The settings in effect of garbage_yolov8m_v2 as the recovery guide's summary table shows them."""
    nan_safe_already = {
        "lrf": 0.00001, "momentum": 0.937, "weight_decay": 0.0005, "box": 7.5, "cls": 1.0, "dfl": 1.5,
        "degrees": 10,
        "translate": 0.1, "scale": 0.5, "shear": 2.0, "perspective": 0, "flipud": 0, "fliplr": 0.5,
        "mosaic": 0.8,
        "close_mosaic": 50, "patience": 100, "epochs": 200, "imgsz": 1280,
    }  # fmt: skip
    seen = {
        "lr0": 0.01, "optimizer": "AdamW", "amp": True, "warmup_epochs": 5, "batch": 128, "mixup": 0.15,
        "copy_paste": 0.3, "hsv_h": 0.03, "hsv_s": 0.9, "hsv_v": 0.6, "save_period": 10,
    }  # fmt: skip
    return {**schema.defaults(), **nan_safe_already, **seen}
