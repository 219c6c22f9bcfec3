"""The pickle inside a checkpoint, read by an interpreter that calls nothing and imports nothing.

In reading order: interpreter, stand_ins, allowlist.
"""
