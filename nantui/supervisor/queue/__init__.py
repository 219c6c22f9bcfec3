"""Runs that wait for their turn: each user's own queue on each host, and the small process that serves it.

A run in the queue is made when it is added, so that its arguments are checked and its name is taken; its turn
is one `start` command, with an id that the queue has written down before: sent twice, it is done once.
docs/queue.md tells the whole story.

In reading order: entries, devices, __main__.
"""
