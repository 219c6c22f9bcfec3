"""Curves as text: axes, thinning and a dot canvas. Knows nothing of terminals, only of cells and inks.

In reading order: draw, series, axis, canvas.
"""
