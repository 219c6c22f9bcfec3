"""Runs over the Model Context Protocol, asked by the SDK's own client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nantui.commands.mcp import Runs, action_words, server
from nantui.errors import UserError
from nantui.run.binding import bind
from nantui.run.events import CommandReceived, of_kind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from tests.compat.archive import DATA, new_root, unpack
from tests.compat.recorded import tree

pytestmark = pytest.mark.usefixtures("quick_start")


@pytest.fixture(scope="module")
def broken(warm_python: str) -> Iterator[Path]:
    """A run that a NaN ended in epoch 3, as it was recorded, trained by an interpreter that there is."""
    root = unpack(DATA / "diverged.tar.xz", new_root())
    script = root / "python"
    script.write_text(f'#!/bin/sh\nexec "{warm_python}" "$@"\n')
    script.chmod(0o755)
    bind(root / "runs" / "diverged")
    yield root / "runs" / "diverged"
    shutil.rmtree(root)


def connected(run, act):
    """Return the SDK's client of a server. Its import costs a second, which only this file needs."""
    import mcp

    return mcp.Client(server(Runs(run.parent), act=act))


async def call(client, tool, **arguments):
    answer = await client.call_tool(tool, arguments)
    text = "".join(part.text for part in answer.content)
    assert not answer.is_error, text
    return text


async def refusal(client, tool, **arguments):
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return "".join(part.text for part in answer.content)


async def test_looking_needs_no_leave_and_there_is_no_tool_that_writes(broken):
    before = tree(broken)
    async with connected(broken, act=False) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"status", "events", "curves", "checkpoints", "diagnosis", "recovery_plan"}
        assert json.loads(await call(client, "status"))["runs"][0]["state"] == "diverged"
        found = json.loads(await call(client, "checkpoints", run="diverged"))["checkpoints"]
        assert {one["badge"] for one in found} == {"clean"}
        curves = json.loads(await call(client, "curves", run="diverged", metrics=["val/box_loss"]))
        assert curves["curves"][0]["epochs"] == [1, 2]
        assert "no metric" in await refusal(client, "curves", run="diverged", metrics=["nothing"])
        assert "no directory below" in await refusal(client, "status", run="../..")
    assert tree(broken) == before


async def test_a_broken_run_is_rolled_back_in_two_steps_and_taken_back(broken):
    before = tree(broken)
    async with connected(broken, act=True) as client:
        assert json.loads(await call(client, "diagnosis", run="diverged"))["causes"]
        plan = json.loads(
            await call(client, "plan_action", action="rollback", run="diverged", to="epoch0.pt")
        )
        assert "epoch0.pt" in plan["text"] and tree(broken) == before
        assert "not known" in await refusal(client, "do", token="guessed")
        await call(client, "do", token=plan["token"])
        assert tree(broken) != before
        assert "not known" in await refusal(client, "do", token=plan["token"])
        undo = json.loads(await call(client, "plan_action", action="undo", run="diverged"))
        await call(client, "do", token=undo["token"])
    assert tree(broken) == before
    asked = of_kind(Journal(RunLayout(broken).journal).events(), CommandReceived)
    assert [one.command.kind for one in asked[-2:]] == ["rollback", "undo"]
    assert all(one.command.by.endswith("via mcp") for one in asked[-2:])


def test_no_word_of_an_agent_becomes_an_option():
    for options in ({"settings": {"--yes": 1}}, {"presets": ["--force"]}):
        given = {"settings": {}, "presets": [], **options}
        with pytest.raises(UserError, match="dash"):
            action_words("resume", "/run", None, given["settings"], given["presets"])
    with pytest.raises(UserError, match="no such option"):
        action_words("stop", "/run", "epoch1.pt", {}, [])
