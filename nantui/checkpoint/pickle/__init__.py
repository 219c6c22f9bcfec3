"""The pickle inside a checkpoint, read by an interpreter that calls nothing and imports nothing.

Files, in reading order:

interpreter: A pickle machine that describes instead of doing: imports, calls and sets nothing
stand_ins: What a pickle describes, as inert values, and the few calls that are carried out on these
allowlist: Which names a checkpoint may mention, which it may call, and what others mean
"""
