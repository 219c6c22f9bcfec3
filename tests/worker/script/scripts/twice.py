"""A user's script that trains twice; the second training starts from the first one's best weights."""

import os
import sys

from ultralytics import YOLO


def break_once(trainer):
    if not os.path.exists(sys.argv[4]):
        open(sys.argv[4], "w").close()
        next(trainer.model.parameters()).data.fill_(float("nan"))


COMMON = {
    "data": sys.argv[2], "project": sys.argv[3], "imgsz": 64, "batch": 8, "nbs": 8, "device": "cpu",
    "workers": 0, "plots": False, "optimizer": "SGD", "warmup_epochs": 0.0, "mosaic": 0.0,
}  # fmt: skip

model = YOLO(sys.argv[1])
model.train(name="first", epochs=1, **COMMON)
best = model.trainer.best
print("first left", best, flush=True)

try:
    model = YOLO(best)
    model.add_callback("on_train_start", lambda trainer: print("begins at", trainer.start_epoch, flush=True))
    model.add_callback("on_fit_epoch_end", break_once)
    model.train(name="second", epochs=3, lr0=0.002, **COMMON)
except Exception as error:  # as careless scripts do
    print("swallowed", error, flush=True)
print("all done", flush=True)
