"""Kept for one release: the names by which processes of the version before start others."""
