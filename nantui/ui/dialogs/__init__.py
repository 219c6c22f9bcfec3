"""One dialog a file: what is asked on top of a screen.

Files, in reading order:

base: What every dialog has: a way out that does nothing, and the keys that work everywhere
confirm: A question before something that is hard to take back; Cancel is the default
detail: Everything that is known about one thing: a checkpoint's findings, an entry of the timeline
help: What can be done on the screen that is open: all its keys, and a command found by its name
choose: Choosing rows of a list: one thing by name, some presets, the next row that has what is typed
recover: R: what is stopped and moved, which epoch comes back, what it costs, what changes and why
"""
