"""One screen a file. Importing this package imports none of them: each comes when it is opened.

In reading order: base, charts, fleet, run, config, machine, compare, diagnosis, labels, log.
"""
