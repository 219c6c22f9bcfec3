"""Every screen in every size, from the real app with real keys on recorded runs."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from devtools import gpu_runs
from devtools.recorded_run import HOST, PLACE, USER, RecordedBackend, record
from nantui.errors import UserError
from nantui.machine.process_identity import this_machine
from nantui.ui import preferences
from nantui.ui.model.backend import Backend

PAUSE = "wait until the screen is at rest"
PREVIEWED = "clean"
SIZES = ("80x24", "120x40", "200x60")
Size = tuple[int, int]
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Scene:
    """A screen: which recording, which keys lead to it, and what tells that it is complete."""

    name: str
    moment: str
    keys: tuple[str, ...] = ()
    ready: str = ""
    fleet: bool = False


EDIT_LR0 = (
    "c", PAUSE, "slash", *"lr0", "enter", PAUSE, "enter", "ctrl+u", "0", "full_stop", "0", "0", "5",
    "enter", PAUSE, "escape",
)  # fmt: skip
SCENES = (
    Scene("run", "recovered", ready="clean"),
    Scene("alarm", "alarm", ready="clean"),
    Scene("recover", "alarm", ("R",), ready="Recover   y"),
    Scene("config", "alarm", EDIT_LR0, ready="was 0.01"),
    Scene("diagnosis", "explained", ("d",), ready="causes"),
    Scene("zoom", "recovered", ("z", "h"), ready="epoch"),
    Scene("steps", "recovered", ("e",), ready="step"),
    Scene("compare", "recovered", ("v",), ready="settings that differ"),
    Scene("output", "recovered", ("o",), ready="lines"),
    Scene("help", "alarm", ("question_mark",), ready="Keys"),
    Scene("commands", "alarm", ("colon",), ready="what do you want"),
    Scene("fleet", "alarm", ready="sorted by state", fleet=True),
)
MACHINE = Scene("machine", "recovered", ("M",), ready="GPU use")
"""Only of a recording that has GPUs."""


@dataclass(frozen=True)
class Recordings:
    """Recorded runs of one machine, and which of them shows what a scene asks for."""

    folder: Path
    names: Mapping[str, str] = field(default_factory=dict)

    def of(self, moment: str) -> Path:
        return self.folder / self.names.get(moment, moment)


SMALL = Recordings(
    Path(__file__).resolve().parents[1] / "tests" / "data" / "recorded_run", {"explained": "alarm"}
)
"""Of a CPU, for tests: small, and the same for years."""


@contextlib.contextmanager
def on_gpus() -> Iterator[Recordings]:
    """Unpack what `devtools.gpu_runs` has recorded."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(Path(__file__).parent / gpu_runs.ARCHIVE) as packed:
            packed.extractall(folder, filter="data")
        recovered = gpu_runs.RECOVERED  # of its NaN the image is known
        names = {"alarm": gpu_runs.ALARM, "recovered": recovered, "explained": recovered}
        yield Recordings(Path(folder), names)


def parse_size(text: str) -> Size:
    """Return (columns, rows) from `80x24`. Raises UserError."""
    columns, _, rows = text.partition("x")
    if not (columns.isdigit() and rows.isdigit()):
        raise UserError(f"--size {text}: expects columns x rows, e.g. 120x40")
    return int(columns), int(rows)


def record_run(run: Path, target: Path) -> None:
    """Record a run without this machine's names in it."""
    run = run.resolve()
    scrub = {
        str(run.parents[1]): str(Path(PLACE).parent),
        sys.executable: "",
        str(Path.cwd()): f"/home/{USER}",
        f"{getpass.getuser()}@{socket.gethostname()}": f"{USER}@{HOST}",
        f'"{socket.gethostname()}"': f'"{HOST}"',
        this_machine().boot_id: "recorded",
    }
    shutil.rmtree(target, ignore_errors=True)
    record(run, target, Backend(), {secret: shown for secret, shown in scrub.items() if secret})


def draw(
    target: Path, sizes: list[Size], only: str | None = None, theme: str | None = None, colours: str = ""
) -> Iterator[Path]:
    """Write an SVG and, where it can be made, a PNG of every scene in every size; yields the files. With
    `colours` 256 they are as in a terminal of so many, else in true colour.
    """
    from devtools.screen_svg import screen_svg

    with quiet_place("" if colours else "truecolor"), on_gpus() as found:
        for scene in (*SCENES, MACHINE):
            if only is None or only in scene.name:
                drawn = asyncio.run(
                    in_sizes(scene, sizes, theme, lambda app: screen_svg(app, "nantui"), found)
                )
                for (columns, lines), svg in drawn.items():
                    name = "-".join(filter(None, (scene.name, f"{columns}x{lines}", theme, colours)))
                    path = target / f"{name}.svg"
                    path.write_text(svg, encoding="utf-8")
                    yield path
                    yield from _png(path)


@contextlib.contextmanager
def quiet_place(colours: str = "truecolor") -> Iterator[None]:
    """A terminal, a time zone and a home that are the same everywhere."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(
            XDG_CONFIG_HOME=home, XDG_STATE_HOME=home, TERM="xterm-256color", COLORTERM=colours, TZ="UTC"
        )
        os.environ.pop("NO_COLOR", None)
        time.tzset()
        preferences.save(signs_shown=True)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            time.tzset()


async def in_sizes(
    scene: Scene,
    sizes: Sequence[Size],
    theme: str | None,
    look: Callable[[Any], Seen],
    recordings: Recordings = SMALL,
) -> dict[Size, Seen]:
    """Return what `look(app)` gives of a scene in each size, one app resized from one to the next."""
    found = {}
    async with shown(scene, sizes[0], theme, recordings) as (app, pilot):
        for size in sizes:
            await pilot.resize_terminal(*size)
            await settle(app, pilot, scene.ready)
            if scene.fleet and app.screen.query_one("#preview #checkpoints").region:
                await settle(app, pilot, PREVIEWED)
            found[size] = look(app)
    return found


def _png(svg: Path) -> Iterator[Path]:
    if shutil.which("rsvg-convert"):
        png = svg.with_suffix(".png")
        subprocess.run(["rsvg-convert", str(svg), "-o", str(png)], check=True)
        yield png


class shown:
    """The app on a recording, with the keys of a scene pressed and everything drawn; an async context."""

    def __init__(
        self, scene: Scene, size: Size, theme: str | None = None, recordings: Recordings = SMALL
    ) -> None:
        self.scene, self.size, self.theme, self.recordings = scene, size, theme, recordings
        self._folder = tempfile.TemporaryDirectory()

    async def __aenter__(self) -> Any:
        from nantui.ui.app import CockpitApp
        from nantui.ui.widgets.hardware import HardwarePanel, History

        top, moment = Path(self._folder.name) / "data" / "runs", self.recordings.of(self.scene.moment)
        among = self.scene.fleet or self.scene.name == "compare"
        others = [path for path in sorted(moment.parent.iterdir()) if path.is_dir() and path != moment]
        backend = RecordedBackend.unpacked([moment, *(others if among else ())], top)
        runs = [*backend.documents]
        app = CockpitApp(top, runs if self.scene.fleet else runs[:1], backend)
        if self.theme:
            app.theme = self.theme
        self._running = app.run_test(size=self.size)
        pilot = await self._running.__aenter__()
        # A dialog that comes before the lists are filled stands over a screen that is still taking shape.
        await settle(app, pilot, "?" if self.scene.fleet else "clean")
        for panel in app.screen.query(HardwarePanel):
            panel.history = History()
            for sample in backend.measured():
                panel.history.add(sample)
        for key in self.scene.keys:
            if key == PAUSE:
                await settle(app, pilot, "")
            else:
                await pilot.press(key)
        await settle(app, pilot, self.scene.ready)
        return app, pilot

    async def __aexit__(self, *error: Any) -> None:
        await self._running.__aexit__(*error)
        self._folder.cleanup()


async def settle(app: Any, pilot: Any, ready: str, patience: int = 200) -> None:
    """Wait until `ready` is on the screen and two looks in a row show the same, colours and all."""
    from devtools.screen_svg import screen_text
    from nantui.ui.textual_internals import screen_rows

    before, text = None, ""
    for _ in range(patience):
        await pilot.pause(0.1)
        rows, text = screen_rows(app), screen_text(app)
        if ready in text and rows == before and "reading" not in text and "scanning," not in text:
            return
        before = rows
    raise UserError(f"the screen did not come to rest with {ready!r} on it:\n{text}")
