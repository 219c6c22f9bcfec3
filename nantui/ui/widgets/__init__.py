"""One widget a file. A widget is given a snapshot and draws lines; it reads nothing itself.

In reading order: header, keybar, chart_wall, timeline, checkpoints, hardware, list_view, line_widget,
dialog_controls.
"""
