"""One run on several hosts: one leads (its supervisor holds the run), an agent takes part on each other.

Nobody sends a signal to another host: each acts on its own processes, and what the others know of it is a
file in the run directory. docs/multi-host.md tells the whole story.

Files, in reading order:

leader: What the supervisor of a run on several hosts does beside its own ranks: gather, watch, wait
agent: A host's part in a run that another host leads: `python -m nantui.supervisor.hosts.agent RUN`
endpoint: Where the ranks of several hosts meet: one address and one port, listened on before anything starts
reports: What the hosts tell one another, as files of the run: an agent's report, the roster of an attempt
consistency: May this host take part? Every difference to the leading host, before anything starts
"""
