"""One widget a file. A widget is given a snapshot and draws lines; it reads nothing itself.

Files, in reading order:

header: The two lines on top: which run, in what state, how far, how fast, how long yet; and the alarm
keybar: The bottom line: the keys that work now, or for a few seconds what there is to say
chart_wall: The wall of charts: as many as fit, in pages
timeline: What happened to the run, as sentences, and the last lines of its output
checkpoints: The checkpoints of the run with their badges, and restore points with what each costs
hardware: GPUs and host: memory first, since that is what ends a training
list_view: A list with a cursor, and a text to scroll: only changed rows are repainted
line_widget: A widget that is a few lines of text, and repaints only the lines that changed
dialog_controls: The buttons of a dialog: words between angle brackets, one of them under the cursor
"""
