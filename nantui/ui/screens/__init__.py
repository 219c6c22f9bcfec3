"""One screen a file. Importing this package imports none of them: each comes when it is opened.

Files, in reading order:

base: What every screen has: a way back, a line to say something in, and keys that explain themselves
charts: What screens with charts share, and one chart large: a cursor that reads values, zoom and pan
fleet: All runs below a directory, live; Enter opens one
run: The screen people keep open: one run, live, with everything that can be done about it
config: The run's settings in groups, checked as they are typed, saved for the next start or resume
machine: The machine in full: the last minutes of every GPU, what a step waits for, who holds the memory
compare: Attempts or runs overlaid, two or many, beside what differs between them
diagnosis: Why it happened: causes with their evidence, and remedies one key away
labels: Errors in the labels of the run's data set, by kind, with the lines; nothing is changed
log: The training's own output: live, searchable, followed or held; lines with NaN stand out
"""
