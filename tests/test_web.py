"""The cockpit in a browser: who gets in, how many, and what they may do.

In a real browser it is tried by `python -m benchmarks.browser`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp.test_utils import TestClient, TestServer

from nantui.cli import main, parser_of
from nantui.commands import web
from nantui.errors import UserError
from tests.compat.archive import DATA, new_root, unpack

TOKEN = "a-token-of-twenty-letters"


def arguments(*words: str) -> argparse.Namespace:
    return parser_of("web").parse_args(list(words))


def cockpits() -> list[psutil.Process]:
    """Return the viewers' processes, the shells that started them included."""
    mine = psutil.Process().children(recursive=True)
    return [child for child in mine if "--read-only" in " ".join(words_of(child))]


def words_of(child: psutil.Process) -> list[str]:
    """Return a process' command line; one that has just ended has none."""
    try:
        return child.cmdline()
    except psutil.NoSuchProcess:
        return []


@contextlib.asynccontextmanager
async def visitor(*words: str):
    server = web.served(arguments(*words), TOKEN)
    async with TestClient(TestServer(await server._make_app())) as client:
        yield client
        while server.viewers or cockpits():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)  # the loop is told of their end


async def test_nobody_gets_in_without_the_token_and_the_cookie_is_enough_afterwards(tmp_path):
    async with visitor(str(tmp_path)) as client:
        for path in ("/", "/?token=wrong", "/ws", "/static/", "/download/x"):
            assert (await client.get(path)).status == 403, path
        first = await client.get(f"/?token={TOKEN}", allow_redirects=False)
        assert (first.status, first.headers["Location"]) == (302, "/")
        told = first.headers["Set-Cookie"]
        assert "HttpOnly" in told and "SameSite=Strict" in told
        page = await client.get("/")
        assert page.status == 200 and TOKEN not in await page.text()
        assert (await client.get("/", headers={"Origin": "http://elsewhere.example"})).status == 403


async def test_a_viewer_sees_the_run_and_one_too_many_is_sent_away():
    root = unpack(DATA / "finished.tar.xz", new_root())
    async with visitor(str(root / "runs" / "finished"), "--viewers", "1") as client:
        await client.get(f"/?token={TOKEN}")
        async with client.ws_connect("/ws?width=100&height=30") as link:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect("/ws")
            assert refused.value.status == 503
            seen = ""
            while "checkpoints" not in seen:
                message = await asyncio.wait_for(link.receive(), 120)
                assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
                seen += (
                    message.data if isinstance(message.data, str) else message.data.decode(errors="replace")
                )
            assert "read-only" in seen
        async with client.ws_connect("/ws?width=80&height=24") as link:  # whoever goes makes room
            await asyncio.wait_for(link.receive(), 120)


def test_every_viewer_is_read_only_unless_it_was_asked_for(tmp_path):
    for words, read_only in (([], True), (["--act"], False), (["--act", "--read-only"], True)):
        command = web.served(arguments(str(tmp_path), *words), TOKEN).command
        assert ("--read-only" in command) is read_only, words


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [("x" * 20, 0o644, "others can read it"), ("short", 0o600, "at least"), ("ö" * 20, 0o600, "printable")],
)
def test_a_token_file_that_is_no_secret_is_refused(tmp_path, text, mode, said):
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(UserError, match=said):
        web.token_of(path)
    with pytest.raises(UserError, match="cannot be read"):
        web.token_of(tmp_path / "none")


def test_a_port_in_use_and_a_directory_that_is_not_there_are_a_line(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["web", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 3
    assert "cannot listen" in capsys.readouterr().err
    assert main(["web", str(Path(tmp_path / "none"))]) != 0
    assert "no such directory" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [
    (["--port", "0"], "--port expects a number from 1 to 65535"),
    (["--port", "70000"], "--port expects"),
    (["--viewers", "0"], "--viewers one of at least 1"),
    (["--address", "203.0.113.7"], "choose another --address"),
    (["--address", "no such host"], "choose another --address"),
])  # fmt: skip
def test_a_number_or_an_address_that_makes_no_sense_is_a_line(tmp_path, capsys, words, said):
    assert main(["web", str(tmp_path), *words]) > 1
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1


async def test_a_module_in_the_current_directory_is_not_imported(tmp_path, monkeypatch):
    run = unpack(DATA / "finished.tar.xz", new_root()) / "runs" / "finished"
    (tmp_path / "json.py").write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    async with visitor(str(run)) as client:
        await client.get(f"/?token={TOKEN}")
        async with client.ws_connect("/ws?width=80&height=24") as link:
            await asyncio.wait_for(link.receive(), 120)
    assert not (tmp_path / "executed").exists()
