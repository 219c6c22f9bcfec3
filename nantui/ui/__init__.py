"""The cockpit: the only room that imports textual. It reads the run directory and leaves commands."""
