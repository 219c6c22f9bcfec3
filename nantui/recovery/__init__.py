"""Decide and act on a run directory: restore points, rollback, undo, ladder. No torch here."""
