"""A user's script for two devices, trained by Ultralytics' own DDP spawn; here two ranks without a GPU."""

import os
import sys

from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

if "attach" in sys.argv:
    from nantui import attach


class TwoRanks(DetectionTrainer):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        if "LOCAL_RANK" not in os.environ:
            self.ddp, self.world_size = True, 2


if __name__ == "__main__":
    model = YOLO(sys.argv[1])
    if "attach" in sys.argv:
        attach(model, grad_clip=5.0)
    model.add_callback("on_train_end", lambda trainer: print("callback of rank 0", flush=True))
    model.train(
        trainer=TwoRanks, data=sys.argv[2], project=sys.argv[3], name="spawned", epochs=3, imgsz=64,
        batch=8, nbs=8, device="cpu", workers=0, plots=False, optimizer="SGD", lr0=0.001,
        warmup_epochs=0.0, mosaic=0.0,
    )  # fmt: skip
    print("after", flush=True)
