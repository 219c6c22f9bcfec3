"""nantui's own settings, described like Ultralytics' so that one form and one parser serve both.

Defaults are those of nantui.run.spec; stock Ultralytics knows none of these names, so they are kept apart
from a run's training arguments everywhere.
"""

from __future__ import annotations

from nantui.run.documents import JsonObject
from nantui.run.spec import OURS_CHOICES, OURS_DEFAULTS, OURS_NUMBERS

GROUP = "nantui"

HELP = {
    "guard": "what happens to a non-finite step: protect (undo it; end a run that cannot go on: weights not "
    "finite, too many skips), observe (record only) or off",
    "on_suspicion": "what happens when finite numbers look bad (loss exploded, losses zero, loss scale "
    "sinking): warn (say it, train on) or end (the training)",
    "grad_clip": "clip the gradient norm at this value; 0 switches clipping off (Ultralytics: always 10)",
    "rewarmup": "steps over which the learning rate climbs again after a resume",
    "restore_every_minutes": "also keep a restore point after so many minutes, at the epoch's end; 0 is off",
    "keep_restore_points": "the newest clean restore points that are never deleted",
    "max_consecutive_skips": "more skipped steps in a row than this is divergence",
    "skip_window": "steps over which the share of skipped steps is taken",
    "max_skip_share": "a larger share of skipped steps in the window is divergence",
    "loss_limit": "robust score (on log-loss, above what was usual) beyond which a loss counts as exploding",
    "loss_patience": "exploding steps in a row that are said, or end the training (on_suspicion)",
    "min_loss_scale": "a loss scale below this is said, or ends the training (on_suspicion)",
    "step_points": "seconds between step points, from which a resume goes on at the next batch; auto (as "
    "often as 0.5 % of the time allows, at least every 5 minutes) or off (a resume repeats the epoch)",
    "exact": "draw each image's augmentation from (seed, epoch, image), so that a resumed training equals "
    "one that was never interrupted; mosaic then takes its partners from the whole data set (more reads). "
    "Without it a resume sees the same images in the same order, augmented anew",
}
LOWEST = {"skip_window": 1, "keep_restore_points": 1, "loss_patience": 1}
HIGHEST = {"max_skip_share": 1.0}


def describe() -> list[JsonObject]:
    """Return name, types, default, help, range and choices of each of our settings."""
    return [
        {
            "name": name,
            "types": (type(default).__name__, *(("float",) if name in OURS_NUMBERS else ())),
            "default": default,
            "help": HELP[name],
            "range": (LOWEST.get(name, 0), HIGHEST.get(name))
            if name in OURS_NUMBERS or not isinstance(default, (str, bool))
            else None,
            "choices": OURS_CHOICES.get(name, ()),
        }
        for name, default in OURS_DEFAULTS.items()
    ]
