"""Runs that wait for their turn: each user's own queue on each host, and the small process that serves it.

A run in the queue is made when it is added, so that its arguments are checked and its name is taken; its turn
is one `start` command, with an id that the queue has written down before: sent twice, it is done once.
docs/queue.md tells the whole story.

Files, in reading order:

entries: The queue as a file: who waits, who goes, how it ended; whoever changes it is the only one who does
devices: Whose turn it is: which waiting runs find their devices free, and what the others wait for
__main__: The queue's process: `python -m nantui.supervisor.queue`; settles what has ended, starts what may
"""
