"""An interpreter that has torch imported already, for tests that start many processes.

Importing takes several seconds a process, and far longer on a busy machine; a run with two recoveries does it
six times. `WarmPython` forks from one process that has done it: what runs is the same module in a process of
its own, with the arguments, environment, directory and output of whoever started it.

What a module read from its environment when it was imported stays as it was: Ultralytics its rank, for one
(`RANK` in ultralytics/utils/__init__.py). So Ultralytics is not among what is imported before; it takes a
tenth of a second. And /proc tells the environment of the first process, so nobody finds such a process by its
attempt's token: where a test kills or counts processes, they are started in the real way.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import stat
import subprocess
import sys
import threading
import traceback
from pathlib import Path

CLIENT = '''#!{python}
"""Stands in for an interpreter: has the warm one run `[-u] -m MODULE ARGUMENTS…` and ends as that ends."""
import array, json, os, signal, socket, sys
words = sys.argv[2:] if sys.argv[1:2] == ["-u"] else sys.argv[1:]
if words[:1] != ["-m"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
warm = socket.socket(socket.AF_UNIX)
warm.connect({address!r})
request = json.dumps({{"argv": words[1:], "env": dict(os.environ), "cwd": os.getcwd()}}).encode()
streams = array.array("i", [0, 1, 2])
warm.sendmsg([len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
warm.sendall(request)
answers = warm.makefile()
pid = int(answers.readline())
signal.signal(signal.SIGTERM, lambda number, frame: os.kill(pid, number))
code = int(answers.readline() or 255)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
'''


class WarmPython:
    """Starts the warm process in `place`; `path` is what stands in for an interpreter."""

    def __init__(self, place: Path) -> None:
        self.address, self.path = place / "warm", place / "warm-python"
        self.path.write_text(CLIENT.format(python=sys.executable, address=str(self.address)))
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)
        root = str(Path(__file__).parents[1])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "YOLO_OFFLINE": "true"}
        argv = [sys.executable, "-m", "tests.warm", str(self.address)]
        self._process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) != b"warm\n":  # after what Ultralytics has to say
            assert line, "the warm process ended"

    def close(self) -> None:
        """End the warm process; what it has started goes on."""
        self._process.kill()
        self._process.wait()


def serve(address: str) -> None:
    """Import once, then fork for each request, until killed."""
    import cv2  # noqa: F401
    import torch.distributed.run  # noqa: F401
    import torchvision  # noqa: F401

    gc.freeze()  # what has been imported is no garbage in any of the children
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(16)
        print("warm", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(client)
            client.close()


def answer(client: socket.socket) -> None:
    """In a child: start the module in a grandchild, tell its pid and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, ancillary, _, _ = client.recvmsg(4, socket.CMSG_SPACE(3 * 4))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    with client.makefile("rb") as file:
        request = json.loads(file.read(int.from_bytes(head, "big")))
    child = os.fork()
    if child == 0:
        run(request, list(streams))
    client.sendall(f"{child}\n".encode())
    threading.Thread(target=end_with, args=(client, child), daemon=True).start()
    _, status = os.waitpid(child, 0)
    client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def end_with(client: socket.socket, child: int) -> None:
    """Kill the grandchild where its stand-in was killed, which then says no more."""
    if not client.recv(1):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def run(request: dict, streams: list[int]) -> None:
    """In a grandchild: be the process that was asked for."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = request["argv"]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
