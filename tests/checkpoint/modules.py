"""Checkpoints with modules in them, opcode by opcode, for attacks on the scanner."""

import struct

from nantui.checkpoint.scan import scan
from tests.checkpoint import archives as a

DATA = {"data/0": struct.pack("<4e", 1, 2, 3, 4), "data/1": struct.pack("<4H", 0x7E00, 0, 0, 0)}
GOOD, NAN = a.tensor(), a.tensor(of=a.storage(key="1"))
DETECTOR = "ultralytics.nn.tasks", "DetectionModel"


def pairs(*items):
    """A dictionary from key and value opcodes, also with the same key twice."""
    return b"}(" + b"".join(items) + b"u"


def module(made_of=("torch.nn.modules.conv", "Conv2d"), **state):
    empty = {"_parameters": b"}", "_buffers": b"}", "_modules": b"}"}
    return a.name(*made_of) + b")\x81" + a.dictionary(**{**empty, **state}) + b"b"


def convolution(weight):
    return module(_parameters=a.dictionary(weight=weight))


def checkpoint(ema, **more):
    arguments = {"train_args": a.dictionary(epochs=b"K\x09"), **more}
    return a.pickled(a.dictionary(ema=ema, epoch=b"K\x01", **arguments))


def put(index):
    return b"r" + struct.pack("<I", index)


def get(index):
    return b"j" + struct.pack("<I", index)


def judged(body, folder):
    return scan(a.write(folder / "x.pt", body, DATA))
