"""The cockpit: the only room that imports textual. It reads the run directory and leaves commands.

Files, in reading order:

app: The app: themes, glyphs, keys that work everywhere, and which screen comes first
actions: Every key as data: what it is called, what it does, why it cannot be done right now
context: What screens, dialogs and widgets may ask of the app and of the run's screen
watchers: What a thread does for a screen: it scans checkpoints, at a pace that can be drawn
screens/: One screen a file. Importing this package imports none of them: each comes when it is opened.
dialogs/: One dialog a file: what is asked on top of a screen.
widgets/: One widget a file. A widget is given a snapshot and draws lines; it reads nothing itself
charts/: Curves as text: axes, thinning and a dot canvas. Knows nothing of terminals, only of cells and inks.
model/: What the screens show, read from disk in threads, handed over as frozen snapshots; no textual here
theme: Themes read from styles/themes: plain `$name: value;` lines, so that a colour is changed in one place
glyphs: The few symbols that are not letters, for terminals with them and in plain ASCII
styled_text: Text with meaning instead of colours: a span is (text, ink), a line is a list of spans
format: Numbers, times and names as people read them: aligned, with units, harmless whatever a file holds
textual_internals: The only place that leans on what Textual keeps to itself
preferences: What the cockpit remembers between sessions: the theme, and whether the terminal has the glyphs
"""
