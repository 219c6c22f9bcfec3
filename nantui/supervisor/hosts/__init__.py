"""One run on several hosts: one leads (its supervisor holds the run), an agent takes part on each other.

Nobody sends a signal to another host: each acts on its own processes, and what the others know of it is a
file in the run directory. docs/multi-host.md tells the whole story.

In reading order: leader, agent, endpoint, reports, consistency.
"""
