"""Curves as text: axes, thinning and a dot canvas. Knows nothing of terminals, only of cells and inks.

Files, in reading order:

draw: A picture drawn into a number of cells: y labels on the left, a row of x labels below, marks, a readout
series: What a chart is given: curves with gaps where a value was not finite, and marks along the x axis
axis: Where values land on an axis: limits that one outlier cannot ruin, and few, round ticks
canvas: A canvas of dots: eight to a cell in braille, or one sign a cell where only ASCII is safe
"""
