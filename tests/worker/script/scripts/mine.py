"""A user's script: its own trainer, callback, augmentation and data set, which prove that they are used.

With AdamW it breaks its own weights in the second epoch; nothing here knows of nantui.
"""

import os
import sys
from copy import copy

from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer


def prove(text):
    with open(sys.argv[1], "a") as file:
        file.write(text + "\n")


class Brighter:
    def __call__(self, labels):
        prove("augmentation")
        return labels


class MyDataset(YOLODataset):
    def build_transforms(self, hyp=None):
        transforms = super().build_transforms(hyp)
        transforms.insert(0, Brighter())
        return transforms


class MyTrainer(DetectionTrainer):
    def build_dataset(self, img_path, mode="train", batch=None):
        dataset = super().build_dataset(img_path, mode, batch)
        dataset.__class__ = MyDataset
        dataset.transforms = dataset.build_transforms(copy(self.args))
        prove("dataset")
        return dataset

    def optimizer_step(self):
        prove("trainer")
        super().optimizer_step()


def break_with_adam(trainer):
    prove(f"callback {trainer.epoch + 1}")
    if type(trainer.optimizer).__name__ == "AdamW" and trainer.epoch == 1:
        next(trainer.model.parameters()).data.fill_(float("nan"))


if __name__ == "__main__":
    model = YOLO(sys.argv[2])
    model.add_callback("on_train_epoch_start", break_with_adam)
    model.train(
        trainer=MyTrainer, data=sys.argv[3], project=sys.argv[4], name="mine", epochs=3, imgsz=64, batch=8,
        nbs=8, device="cpu", workers=0, plots=False, optimizer="AdamW", lr0=0.002, amp=True,
        warmup_epochs=0.0, mosaic=0.0, save_period=1,
    )  # fmt: skip
    prove(f"weights {os.path.isfile(os.path.join(sys.argv[4], 'mine', 'weights', 'best.pt'))}")
    prove("after")
