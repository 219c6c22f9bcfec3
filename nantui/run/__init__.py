"""A run on disk: names of files, readers of what Ultralytics and nantui wrote, the journal.

The run directory is the database and the only channel between the terminal, the supervisor and the
worker. Nothing here starts, stops or judges anything.
"""
