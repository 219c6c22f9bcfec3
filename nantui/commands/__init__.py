"""What each command does, one module a command or for a few of one kind; nothing heavy is imported here.

Files, in reading order:

acting: The commands that act on a run: stop, recover, rollback, undo, resume
check: The truth about checkpoints, without running them: files, a `weights/` directory, or whole runs
cockpit: Open the cockpit on a run, or on all runs below a directory (default: here)
completion: Completion for a shell: commands, options, runs, settings with their values and presets
common: What every command shares: the options that readers and changers have, questions, and output
curves: What runs have recorded, to look at elsewhere: plot, compare, export
demo: A real training on a small drawn data set, with two planted faults: see them, recover, finish
diagnose: Why it happened: causes with their evidence, and what helps. Reads only
doctor: What is installed, which GPUs and hooks are there, what the system may do to a training
join: Take part, with this host's devices, in a run that another host leads; both see the same run directory
labels: Label errors by kind, and what each would do to training. Changes nothing in the data set
mcp: Runs for agents, over the Model Context Protocol on standard input and output
notify: Whom to tell when nobody is looking: add, list, test and remove URLs, and a heartbeat
presets: List the remedies, show one, or show what it would change in a run and why
queue: Runs that train one after the other, as soon as their devices are free: add, list, move, remove, pause
service: Bring back, after a reboot, the runs that were going under --auto: install, remove, status
starting: The commands that start a run under a supervisor: train, exec, sbatch
watching: How runs stand, what happens to them, and how they end: status, events, wait
web: The cockpit in a browser: read-only unless `--act`, on this machine unless `--address`, behind a token
"""
