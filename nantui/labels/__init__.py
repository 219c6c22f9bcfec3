"""The label check: every row of a data set's label files read as Ultralytics reads it.

In reading order: check, data_set, label_files, row_rules, image_files, problem_kinds, report,
data_set_digest.
"""
