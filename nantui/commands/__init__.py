"""What each command of the command line does, one module a command; nothing heavy is imported here.

Files, in reading order:

check: The truth about checkpoints, without running them: files, a `weights/` directory, or whole runs
cockpit: Open the cockpit on a run, or on all runs below a directory (default: here)
completion: Completion for a shell: commands, options, runs, settings with their values and presets
common: What every command shares: the options that readers and changers have, questions, and output
compare: Two runs, or two attempts of a run (RUN#N): settings, curves on the same epochs, best metrics, cost
demo: A real training on a small drawn data set, with two planted faults: see them, recover, finish
diagnose: Why it happened: causes with their evidence, and what helps. Reads only
doctor: What is installed, which GPUs and hooks are there, what the system may do to a training
events: What happened to runs, one line an event: the journal and what every rank reported
exec: Run your own training script, unchanged, detached, with guard and telemetry
export: A run's epochs, steps, incidents and checkpoints as CSV, Parquet, JSON or TensorBoard events
following: What the commands that act on a run share: send, show the stages, turn the outcome into a status
join: Take part, with this host's devices, in a run that another host leads; both see the same run directory
labels: Label errors by kind, and what each would do to training. Changes nothing in the data set
mcp: Runs for agents, over the Model Context Protocol on standard input and output
notify: Whom to tell when nobody is looking: add, list, test and remove URLs, and a heartbeat
plot: Curves of one or more runs in the terminal, for a chat, a log or a pipe
presets: List the remedies, show one, or show what it would change in a run and why
queue: Runs that train one after the other, as soon as their devices are free: add, list, move, remove, pause
recover: Stop, roll back to a clean checkpoint, continue: the one key R
resume: Continue a run under a supervisor, with changed settings really in effect
rollback: Go back to a clean checkpoint: back up, restore, write changed settings into it, trim
sbatch: Write a Slurm job for a run, and submit it; after a requeue the run goes on by itself
service: Bring back, after a reboot, the runs that were going under --auto: install, remove, status
status: State, epoch, time to go, losses and last incident of a run, or of every run below a directory
stop: Stop at the next batch boundary, checkpoint kept; returns when no process of the training is left
train: Start a run under a supervisor that outlives this terminal, and return
undo: Take the last rollback back: everything outside nantui/ as it was before, byte for byte
web: The cockpit in a browser: read-only unless `--act`, on this machine unless `--address`, behind a token
wait: Wait until runs have ended, a line an epoch, and return how: the exit status is the run's own
"""
