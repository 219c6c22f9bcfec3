"""One dialog a file: what is asked on top of a screen.

Files, in reading order:

base: What every dialog has: a way out that does nothing, and the keys that work everywhere
confirm: A question before something that is hard to take back; Cancel is the default
detail: Everything that is known about one thing: a checkpoint's findings, an entry of the timeline
find: `/` in a list or a text: go to the next row that has what is typed
help: The keys of the screen that is open, made from its bindings
command_palette: Find a command by its name: first those that can be done now, then why not the others
presets: Choose presets: named remedies, each with what it is for
recover: R: what is stopped and moved, which epoch comes back, what it costs, what changes and why
"""
