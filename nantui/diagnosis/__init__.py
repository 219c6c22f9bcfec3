"""Why it happened: causes from evidence, each with its probability and what to do.

In reading order: facts, evidence, causes, replay.
"""
