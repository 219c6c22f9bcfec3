"""Curves as text: scales, thinning and a dot canvas. Knows nothing of terminals, only of cells and inks."""
