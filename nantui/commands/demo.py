"""A real training on a small drawn data set, with two planted faults: see them, recover, finish.

Act one: the guard only observes, and one bad batch leaves NaN in the BatchNorm statistics. Ultralytics
notices nothing and saves ruined checkpoints. Press R. Act two: with the guard protecting, one NaN pixel
costs one step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nantui.commands import common
from nantui.commands.cockpit import run as open_cockpit
from nantui.demo.headless import Stages, play
from nantui.demo.narration import narrate
from nantui.demo.story import make_story
from nantui.errors import FAILED, UserError
from nantui.run.status import FINISHED
from nantui.supervisor.client import create_run
from nantui.supervisor.status import read_status

PACE_FOR_A_PERSON_S = 0.12
PACE_ALONE_S = 0.03


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui demo` takes."""
    parser.add_argument("--headless", action="store_true", help="play the keys and prove it from the files")
    parser.add_argument(
        "--dir", type=Path, default=Path("nantui-demo"), metavar="DIR", help="where to keep it"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the training's seed")


def run(arguments: argparse.Namespace) -> int:
    """Make the data set, start the training, and open the cockpit on it (or play it headless)."""
    common.refuse_read_only(arguments)
    headless = arguments.headless or not (sys.stdin.isatty() and sys.stdout.isatty())
    stages = Stages()
    where = _start(arguments, PACE_ALONE_S if headless else PACE_FOR_A_PERSON_S)
    stages.say("run created", str(where))
    if headless:
        return play(where, stages)
    return _watch(arguments, where)


def _start(arguments: argparse.Namespace, seconds_per_step: float) -> Path:
    try:
        story = make_story(arguments.dir, seconds_per_step, arguments.seed)
    except OSError as error:
        raise UserError(f"{arguments.dir}: {error.strerror}; choose another --dir", FAILED) from error
    return create_run(story.train, story.ours, python=arguments.python, faults=story.faults)


def _watch(arguments: argparse.Namespace, where: Path) -> int:
    arguments.directory, arguments.narrate = where, narrate
    status = open_cockpit(arguments)
    state = read_status(where).state
    said = "The demo has finished" if state == FINISHED else f"The training is {state}"
    common.say(f"{said}. Look at it again with: nantui {where}")
    return status
