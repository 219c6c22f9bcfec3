"""Processes: start a training, watch it, stop it, and prove that nothing of it is left.

Files, in reading order:

__main__: The supervisor: `python -m nantui.supervisor RUN`; it takes up what an earlier one left
supervisor: The one process that holds a run: its lock, journal, published state and worker
ports: What a command may ask of the supervisor that carries it out: no more than its part needs
handlers: What each command does, as plain code over what it may ask of the supervisor
launch: Start the worker of an attempt: record first what it is asked to do, then one process (or torchrun)
attempt_watch: What the supervisor sees of a running attempt: ranks' events and rank 0's telemetry
stacks: Where each rank hangs: its Python stack, its collective, its native stack
foreign: Trainings that nantui did not start: find them, show whose they are and how far, stop only their tree
stop: Stopping means stopped: an agreed step first, then signals, and never done before nothing is left
outcome: How an attempt ended, from the ranks' exit files and, where there are none, from its log
recovery: What is asked of recovery, and what follows an attempt's end: the next phase, an unattended recovery
helper_process: Short helper processes: Ultralytics' own argument check, and the transactions of recovery
client: For cockpit and commands: leave a command, see to it that a supervisor lives, follow it
status: Where a run stands, read cheaply by anybody at any time, and never trusting a pid alone
state: Who holds a run and where it stands: its lock, and supervisor.json, which its holder alone writes
gpu_admission: Before a worker starts, whoever asked: is there room on its GPUs, its disk, its data?
gpu_marks: Whether a GPU failed a training: what it counted before and after, what the kernel says
run_spec: What a run is asked to be, as commands act on it and change it
config: How patient the supervisor is, and whom it tells: defaults, and the user's own `supervise.yaml`
host_checks: What the system around a training may do to it: kill it at logout, starve it, or break its files
notify/: Tell somebody who is not looking: by any URL that Apprise knows, a web hook, a command
queue/: Runs that wait for their turn: each user's queue on each host, and the small process that serves it
hosts/: One run on several hosts: one leads (its supervisor holds the run), an agent takes part on each other
"""
