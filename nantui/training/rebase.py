"""Kept for one release: the name before of `nantui.worker.checkpoints.rebase`."""

from nantui.entry_points import run_under_old_name

if __name__ == "__main__":
    run_under_old_name("nantui.training.rebase")
