"""The cockpit in a real browser: `nantui web` on a run, opened in Chromium as a person would.

    python -m benchmarks.browser RUN [--pictures DIR]

Needs Chromium (Debian: apt-get install chromium) and the extra `web`. Says what was seen: who has no token
sees nothing, a key changes the screen, read-only keys change no file, a viewer that goes leaves no process,
and neither does the end of the server. Pictures are of a phone's and a desktop's width.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.figures import description

WIDTHS = {"phone": (390, 844), "desktop": (1400, 900)}
KEYS = "xXsRrcdgju"
WAIT_S = 20.0


class Page:
    """One page of the browser, over Chromium's own protocol."""

    def __init__(self, link: aiohttp.ClientWebSocketResponse) -> None:
        self.link, self.number = link, 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        await self.link.send_json({"id": self.number, "method": method, "params": params})
        while True:
            answer = await self.link.receive_json()
            if answer.get("id") == self.number:
                return dict(answer.get("result") or {})

    async def open(self, url: str, width: int, height: int) -> None:
        await self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                       deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        await self.ask("Page.navigate", url=url)

    async def text(self) -> str:
        found = await self.ask("Runtime.evaluate", expression="document.body.innerText")
        return str(found["result"].get("value"))

    async def picture(self) -> bytes:
        return base64.b64decode((await self.ask("Page.captureScreenshot"))["data"])

    async def press(self, key: str) -> None:
        await self.ask("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def settled(self, other_than: bytes = b"") -> bytes:
        """Return the picture once two in a row are the same, and other than an earlier one."""
        before, until = b"", time.monotonic() + WAIT_S
        while time.monotonic() < until:
            await asyncio.sleep(1.0)
            now = await self.picture()
            if now == before and now != other_than:
                return now
            before = now
        return before


def main() -> int:
    parser = description(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    found = asyncio.run(looked_at(arguments.run.resolve(), arguments.pictures))
    for name, held in found.items():
        print(f"{'ok' if held else 'FAILED':<7} {name}")
    return 0 if all(found.values()) else 1


async def looked_at(run: Path, pictures: Path | None) -> dict[str, bool]:
    """Return, by sentence, what held."""
    port, debugging = free_port(), free_port()
    argv = [sys.executable, "-m", "nantui", "web", str(run), "--port", str(port)]
    server = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said = server.stderr.readline()
    address = re.findall(r"http\S+", said)
    if not address:
        raise SystemExit(f"nantui web said: {said}")
    with tempfile.TemporaryDirectory() as profile:
        browser = start_browser(debugging, profile)
        try:
            async with aiohttp.ClientSession() as session:
                return await with_page(session, debugging, address[0], run, server, pictures)
        finally:
            browser.terminate()
            browser.wait()
            server.kill()


async def with_page(
    session: aiohttp.ClientSession,
    debugging: int,
    address: str,
    run: Path,
    server: subprocess.Popen[str],
    pictures: Path | None,
) -> dict[str, bool]:
    found = {}
    async with session.ws_connect(await debugger(session, debugging), max_msg_size=0) as link:
        page = Page(link)
        base = address.partition("?")[0]
        await page.open(base, *WIDTHS["desktop"])
        found["without a token there is nothing to see"] = "with its token" in await page.text()
        await page.open(f"{base}?token=wrong", *WIDTHS["desktop"])
        found["with a wrong token there is nothing to see"] = "with its token" in await page.text()
        before = everything(run)
        for name, size in WIDTHS.items():
            await page.open(address, *size)
            shown = await page.settled()
            keep(pictures, name, shown)
            if name == "desktop":
                await page.press("?")
                found["a key changes the screen"] = await page.settled(shown) != shown
                await page.press("?")
        for key in KEYS:
            await page.press(key)
            await asyncio.sleep(0.5)
            await page.ask("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r")
        await asyncio.sleep(2)
        found["read-only keys change no file of the run"] = everything(run) == before
        await page.ask("Page.navigate", url="about:blank")
        found["a viewer that goes leaves no process"] = await gone(run)
        await page.open(address, *WIDTHS["desktop"])
        await page.settled()
        server.send_signal(signal.SIGINT)
        found["the server ends when it is told to"] = await ends(server)
        found["the end of the server leaves no process"] = await gone(run)
    return found


def keep(pictures: Path | None, name: str, picture: bytes) -> None:
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        (pictures / f"web-{name}.png").write_bytes(picture)


def start_browser(port: int, profile: str) -> subprocess.Popen[bytes]:
    chromium = shutil.which("chromium")
    if not chromium:
        raise SystemExit("Chromium is not installed")
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"]
    argv = [chromium, *words, f"--user-data-dir={profile}", f"--remote-debugging-port={port}", "about:blank"]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def debugger(session: aiohttp.ClientSession, port: int) -> str:
    until = time.monotonic() + WAIT_S
    while True:
        try:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [one for one in await answer.json() if one["type"] == "page"]
                return str(pages[0]["webSocketDebuggerUrl"])
        except (aiohttp.ClientError, IndexError):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)


async def gone(run: Path) -> bool:
    """Tell whether no cockpit on the run is left, after at most `WAIT_S`."""
    until = time.monotonic() + WAIT_S
    while cockpits(run):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.5)
    return True


async def ends(server: subprocess.Popen[str]) -> bool:
    until = time.monotonic() + WAIT_S
    while server.poll() is None and time.monotonic() < until:
        await asyncio.sleep(0.2)
    return server.poll() is not None


def cockpits(run: Path) -> list[int]:
    """Return the pids of the cockpits on `run`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(run) in words and b"--read-only" in words:
            found.append(int(process.name))
    return found


def everything(run: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.rglob("*") if path.is_file()
    }


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        return int(listening.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())
