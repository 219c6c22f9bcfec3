"""A rank's process ends in good order, and its interpreter is not taken down under threads that still run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nantui.worker.process_end import last_words

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

SCRIPT = """
import atexit, sys, threading, time
from nantui.worker.process_end import leave

class Module:
    def __del__(self):
        print("taken down", flush=True)

kept = Module()
atexit.register(print, "exit function")
threading.Thread(target=lambda: (time.sleep(0.2), print("other thread"))).start()
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
sys.stdout.write("last words ")
leave(77)
"""


def test_threads_exit_functions_and_output_are_awaited_and_the_interpreter_stays():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=BUFFERED, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 77 and ended.stderr == ""
    assert ended.stdout == "last words other thread\nexit function\n"


def test_output_that_cannot_be_written_changes_nothing_of_the_code():
    script = "import sys; from nantui.worker.process_end import leave; sys.stdout.write('words'); leave(77)"
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", script], env=BUFFERED, stdout=full, timeout=60)
    assert ended.returncode == 77


GLOO = """
import torch
from torch import distributed
from nantui.worker.process_end import leave

distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
torch.kept = distributed.group.WORLD
distributed.all_reduce(torch.ones(8))
leave(0)
"""


WAITS = """
import sys, time
from torch import distributed
from nantui.worker.process_end import leave

distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
distributed.destroy_process_group = lambda: (print("waits for the others", flush=True), time.sleep(3600))
leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [1, 75])
def test_a_rank_that_failed_or_was_told_does_not_wait_for_the_others_to_take_the_group_apart(code):
    """NCCL's is taken apart by all together, and the others wait for this rank in a collective."""
    words = [sys.executable, "-c", WAITS, str(code)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ended.returncode == code and "waits" not in ended.stdout


def test_the_ranks_are_left_even_where_something_holds_their_group():
    assert subprocess.run([sys.executable, "-c", GLOO], timeout=120).returncode == 0


def test_an_exception_is_told_by_its_telling_line():
    size = "\tsize mismatch for model.22.cv3.0.2.weight: shape 3 is not 4"
    said = last_words(RuntimeError(f"Error(s) in loading state_dict for DetectionModel:\n{size}\nmore"))
    assert said == f"RuntimeError: Error(s) in loading state_dict for DetectionModel: {size.strip()}"
    assert last_words(ValueError("one\ntwo")) == "ValueError: one" and last_words(KeyError()) == "KeyError"
