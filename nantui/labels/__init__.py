"""The label check: every row of a data set's label files read as Ultralytics reads it.

Files, in reading order:

check: The label check: a data set in, a report out, in one process or several
data_set: Where a data set's images and labels are, by Ultralytics' rules, without importing it
label_files: From label files to one table of numbers, a batch of files at a time
row_rules: The verdict on a table of label rows: every kind of problem, for thousands of files at once
image_files: The images themselves: what Ultralytics' `check_image` would say, without rewriting anything
problem_kinds: Every kind of label problem: how bad, what Ultralytics does with it, what it can lead to
report: What a label check found, and how it is told: counts, the first lines, JSON and CSV
data_set_digest: What must be the same on every host of a run: versions, and the images of the data set
"""
