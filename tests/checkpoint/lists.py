"""What the tests of a run's list of checkpoints share."""

import os
import time

START = time.time() - 7200


def channel(checkpoint):
    from tests.checkpoint.editing import CONV, NAN, poison  # needs torch, which half of the room does without

    poison(lambda name: name == CONV, NAN, channel=7)(checkpoint)


def age(path, seconds):
    os.utime(path, (START + seconds, START + seconds))
    return path


def badges(catalog):
    return {verdict.path.name: verdict.badge for verdict in catalog.verdicts()}
