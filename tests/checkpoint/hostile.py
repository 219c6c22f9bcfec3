"""What the tests of hostile files share: a call to trip over, and a program of its own for each corpus."""

import json
import pickle
import struct
import subprocess
import sys

from tests.checkpoint import archives as a

CLEAN = a.tensor()
DATA = {"data/0": struct.pack("<4e", 1, 2, 3, 4)}
PICKLE = a.pickled(a.dictionary(model=CLEAN))
CONV_2D = a.name("torch.nn.modules.conv", "Conv2d")


class Reduce:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def os_system():
    import os

    return pickle.dumps(Reduce(os.system, "touch /tmp/nantui-tripwire"), 2)


def output_of(program, folder):
    """Run a program in a Python of its own on a folder of files; it prints JSON."""
    command = [sys.executable, "-c", program, str(folder)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
