"""Interpreters that have imported already, for tests that start many processes.

Importing torch, torchvision and Ultralytics costs 3.5 s of a core in every process, a tiny training 0.3 s an
epoch. What `stand_in` returns is started like an interpreter and has a server fork a process that has them:
the module, script or code runs with the words, environment, directory, open files, ignored signals and
`sys.path` that the stand-in was given. /proc shows this environment and command line, what it starts by
`sys.executable` is warm as well, signals are passed on, and where one of the two is killed, so is the other.

What stays different: there is one process more (the stand-in is a child of whoever starts it, the process is
not), and modules are as they were imported. What Ultralytics reads from the environment when it is imported
is its rank, for one (ultralytics/utils/__init__.py, `RANK`): ranks are forked before that import. So a test
is cold where it counts processes, limits them or is about their start; so is whatever dies with its parent.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import marshal
import os
import runpy
import select
import shutil
import signal
import site
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from nantui import entry_points

ROOT = Path(__file__).parents[1]
STARTED_IN_S = 300
MOST_FILES = 64
ROOM_BYTES = 60_000
"""What the server's own environment and command line are padded to, so that a child's fit in their place."""

CLIENT = '''#!{python} -IS
"""Stands in for an interpreter: has a warm one be the process that was asked for, and ends as that ends."""
import _signal, _socket, array, marshal, os, sys
words = sys.argv[1:]
begin = words[1:] if words[:1] == ["-u"] else words
kind, module = [*begin, "", ""][:2]
trains = module.startswith(("nantui.worker", "nantui.training"))
if kind.endswith("/stub_worker.py") or kind == "-m" and f"{{module}}.".startswith("nantui.") and not trains:
    level = "" if module in {known_by_pid} else "nantui"
elif not {torch} or not kind or kind.startswith("-") and kind not in ("-m", "-c"):
    level = ""
elif "NANTUI_TIED" in os.environ:
    level = ""
elif "RANK" in os.environ or "NANTUI_HOOK" in os.environ:
    level = "torch"
else:
    level = "ultralytics"
if not level:
    os.execv({python!r}, [{python!r}, *words])
warm = _socket.socket(_socket.AF_UNIX)
warm.connect({address!r} + level)
usual = [number for number in range(1, 32) if number not in (_signal.SIGKILL, _signal.SIGSTOP)]
ignored = [number for number in usual if _signal.getsignal(number) == _signal.SIG_IGN]
numbers = [int(name) for name in os.listdir("/proc/self/fd")]
numbers = [number for number in numbers if os.path.exists(f"/proc/self/fd/{{number}}")]
numbers.remove(warm.fileno())
asked = {{"words": words, "begin": begin, "env": dict(os.environ), "cwd": os.getcwd(), "ignored": ignored,
         "fds": numbers, "python": sys.argv[0]}}
request = marshal.dumps(asked)
sent = array.array("i", numbers)
warm.sendmsg([len(request).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, sent)])
warm.sendall(request)
answers = open(warm.fileno(), "rb", closefd=False)
pid = int(answers.readline())
for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGUSR1, _signal.SIGUSR2):
    if number not in ignored:
        _signal.signal(number, lambda number, frame: os.kill(pid, number))
code = int(answers.readline() or 255)
if code < 0:
    if -code != _signal.SIGKILL:
        _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
'''
KNOWN_BY_PID = (entry_points.HOST_AGENT,)
"""Whoever starts one of these compares its pid with that of the process that it started."""
NANTUI = ("nantui",)
TORCH = ("torch", "ultralytics")


def stand_in(place: Path, torch: bool) -> str:
    """Write what stands in for an interpreter into `place` and return its path; `torch` says whether there
    are servers that have it. What they cannot do is done by the real interpreter.
    """
    path = place / ("torch-python" if torch else "python")
    path.write_text(
        CLIENT.format(python=sys.executable, address=f"{place}/", torch=torch, known_by_pid=KNOWN_BY_PID)
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def start_servers(address: str, levels: tuple[str, ...], owner: int) -> None:
    """Start what serves at `address`, a short path, and wait for it. It ends with the process `owner`, and
    takes the folder away; what it has forked goes on.
    """
    room = "x" * ROOM_BYTES
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true"}
    environment.pop("PYTHONPATH", None)  # of what it names, an editable install would not be told
    log = Path(f"{address}{levels[0]}.log")
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", address, str(owner), *levels, room], cwd=ROOT,
            env={**environment, "ROOM": room}, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    until = time.monotonic() + STARTED_IN_S
    while not all(Path(f"{address}{level}").exists() for level in levels):
        assert server.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.02)


def serve_all(address: str, owner: int, levels: tuple[str, ...]) -> None:
    """Import, and serve; what goes further is imported, and served, by a fork."""
    for level in levels:
        import_all(level)
        if level == levels[-1] or os.fork():
            Server(f"{address}{level}", owner).serve()


def import_all(level: str) -> None:
    for name in IMPORTED[level]:
        with contextlib.suppress(ImportError):  # of another release
            importlib.import_module(name)


IMPORTED = {
    "nantui": (
        "nantui.supervisor.__main__", "nantui.supervisor.gpu_admission", "nantui.supervisor.gpu_marks",
        "nantui.supervisor.notify.__main__", "nantui.supervisor.queue.__main__", "nantui.recovery.__main__",
        "nantui.labels.data_set_digest", "nantui.checkpoint.scan", "nantui.settings.presets", "nantui.cli",
        "nantui.commands.starting", "nantui.commands.acting", "nantui.commands.watching", "numpy",
    ),
    "torch": (
        "torch.distributed.run", "torchvision", "cv2", "matplotlib.pyplot", "polars", "psutil", "requests",
        "thop",
    ),
    "ultralytics": (
        "ultralytics.models.yolo.detect", "ultralytics.utils.plotting", "ultralytics.engine.exporter",
    ),
}  # fmt: skip


class Server:
    """Forks a process for each request that comes to `address`, until the process `owner` is gone."""

    def __init__(self, address: str, owner: int) -> None:
        self.owner, self.place = os.pidfd_open(owner), os.path.dirname(address)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(f"{address}.new")
        self.listening.listen(64)
        self.stand_ins: dict[int, tuple[int, socket.socket]] = {}
        """By the descriptor of a forked process: its pid, and who waits for its end."""
        gc.collect()
        gc.freeze()  # what has been imported is no garbage in any of the children
        os.rename(f"{address}.new", address)

    def serve(self) -> NoReturn:
        while True:
            waiting = {client.fileno(): process for process, (_, client) in self.stand_ins.items()}
            ready, _, _ = select.select([self.owner, self.listening, *self.stand_ins, *waiting], [], [])
            if self.owner in ready:
                shutil.rmtree(self.place, ignore_errors=True)
                os._exit(0)
            for descriptor in ready:
                process = waiting.get(descriptor, descriptor)
                if process in self.stand_ins:
                    self.end(process, killed=descriptor in waiting)
            if self.listening in ready:
                self.begin(self.listening.accept()[0])

    def begin(self, client: socket.socket) -> None:
        """Fork what is asked for, and tell its pid."""
        head, ancillary, _, _ = client.recvmsg(4, socket.CMSG_SPACE(MOST_FILES * 4))
        if not head:  # killed before it has asked
            client.close()
            return
        numbers = array.array("i")
        numbers.frombytes(ancillary[0][2])
        with client.makefile("rb") as file:
            request = marshal.loads(file.read(int.from_bytes(head, "big")))
        if (pid := os.fork()) == 0:
            for descriptor in [self.owner, *self.stand_ins]:
                os.close(descriptor)
            for one in [self.listening, client, *(other for _, other in self.stand_ins.values())]:
                one.close()
            be(request, list(numbers))
        for number in numbers:
            os.close(number)
        self.stand_ins[os.pidfd_open(pid)] = (pid, client)
        with contextlib.suppress(OSError):
            client.sendall(f"{pid}\n".encode())

    def end(self, process: int, killed: bool) -> None:
        """Tell how a process ended; first kill it where its stand-in was killed, which says no more."""
        pid, client = self.stand_ins.pop(process)
        if killed:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        client.close()
        os.close(process)


def be(request: dict[str, Any], received: list[int]) -> NoReturn:
    """In the forked process: be the one that was asked for."""
    os.setsid()
    take_files(request["fds"], received)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    take_environment(request)
    code = 1
    try:
        start(request)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code & 255)


def take_files(numbers: list[int], received: list[int]) -> None:
    """Have the files of the stand-in under its own numbers."""
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, max(100, *numbers) + 1) for descriptor in received]
    for descriptor in received:
        os.close(descriptor)
    for number, descriptor in zip(numbers, above, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def take_environment(request: dict[str, Any]) -> None:
    """Have the environment, directory and path of the stand-in, also for whoever looks into /proc."""
    asked, words = request["env"], [request["python"], *request["words"]]
    set_by_imports = {name: value for name, value in os.environ.items() if STARTED_WITH.get(name) != value}
    os.environ.clear()
    os.environ.update({**asked, **set_by_imports})
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    for place, entries in ((45, words), (47, [f"{name}={value}" for name, value in asked.items()])):
        begin, end = int(stat[place]), int(stat[place + 1])
        shown = b"".join(os.fsencode(entry) + b"\0" for entry in entries)[: end - begin]
        ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)
    os.chdir(request["cwd"])
    sys.executable, sys.orig_argv = request["python"], words
    folders = [os.path.abspath(one) for one in asked.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:] = [*folders, *(one for one in INSTALLED if one not in folders)]  # as `site` adds them
    if asked.get("PYTHONUNBUFFERED") or words[1] == "-u":
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]


def finds_this_nantui() -> bool:
    """Tell whether the nantui that was imported is the one that `sys.path` leads to."""
    places = (os.path.join(folder, "nantui") for folder in sys.path)
    found = next(filter(os.path.isdir, places), "")
    return bool(found) and os.path.samefile(found, ROOT / "nantui")


def start(request: dict[str, Any]) -> None:
    """Run the module, the code or the script as the main one."""
    kind, *rest = request["begin"]
    first = {"-m": os.getcwd(), "-c": ""}.get(kind, os.path.dirname(os.path.realpath(kind)))
    sys.path.insert(0, first)
    own = {"tests"} if finds_this_nantui() else {"tests", "nantui"}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # a fork would go on where all others do
    sys.modules.pop("sitecustomize", None)
    site.execsitecustomize()  # type: ignore[attr-defined]
    if kind == "-m":
        sys.argv = rest
        for name in (rest[0], f"{rest[0]}.__main__"):
            if not hasattr(sys.modules.get(name), "__path__"):
                sys.modules.pop(name, None)  # it will be the main one, and no other
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    STARTED_WITH, INSTALLED = dict(os.environ), sys.path[1:]
    serve_all(sys.argv[1], int(sys.argv[2]), tuple(sys.argv[3:-1]))
