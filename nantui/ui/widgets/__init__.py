"""One widget a file. A widget is given a snapshot and draws lines; it reads nothing itself.

Files, in reading order:

header: The two lines on top: which run, in what state, how far, how fast, how long yet; and the alarm
keybar: The bottom line: the keys that work now, or for a few seconds what there is to say
chart_wall: The wall of charts: as many as fit, in pages
timeline: What happened to the run, as sentences, newest at the bottom
checkpoints: The checkpoints of the run, each with its badge as a word, a glyph and a colour
hardware: GPUs and host: memory first, since that is what ends a training
log: Lines of a log, the newest hundred thousand of them
candidates: Restore points with what each costs, and why the others are out
fleet: Runs as a table: name, state, progress, loss, time left, last incident
list_view: A list with a cursor: only visible rows are drawn, only changed rows repainted
line_widget: A widget that is a few lines of text, and repaints only the lines that changed
text_view: Text to read and scroll: headings, paragraphs, tables, as lines that are made for a width
dialog_controls: The buttons of a dialog: words between angle brackets, one of them under the cursor
"""
