"""A real training on a small drawn data set, with two planted faults: see them, recover, finish.

Act one: the guard only observes, and one bad batch leaves NaN in the BatchNorm statistics. Ultralytics
notices nothing and saves ruined checkpoints. Press R. Act two: with the guard protecting, one NaN pixel
costs one step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nantui.commands import cockpit, common
from nantui.demo import story
from nantui.demo.headless import Stages, play
from nantui.errors import refused
from nantui.run.status import FINISHED
from nantui.supervisor.status import read_status

PACE_FOR_A_PERSON_S, PACE_ALONE_S = 0.12, 0.03


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_flags(parser, headless="play the keys and prove it from the files")
    place = Path("nantui-demo")
    parser.add_argument("--dir", type=Path, default=place, metavar="DIR", help="where to keep it")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the training's seed")


def run(arguments: argparse.Namespace) -> int:
    """Make the data set, start the training, and open the cockpit on it (or play it headless)."""
    common.refuse_read_only(arguments)
    headless = arguments.headless or not (sys.stdin.isatty() and sys.stdout.isatty())
    stages, pace = Stages(), PACE_ALONE_S if headless else PACE_FOR_A_PERSON_S
    with refused(str(arguments.dir), "choose another --dir"):
        where = story.start(arguments.dir, pace, arguments.seed, arguments.python)
    stages.say("run created", str(where))
    if headless:
        return play(where, stages)
    arguments.directory, arguments.narrate = where, story.narrate
    status = cockpit.run(arguments)
    state = read_status(where).state
    said = "The demo has finished" if state == FINISHED else f"The training is {state}"
    common.say(f"{said}. Look at it again with: {common.look_at(where)}")
    return status
