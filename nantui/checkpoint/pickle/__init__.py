"""The pickle inside a checkpoint, read by an interpreter that calls nothing and imports nothing.

Files, in reading order:

interpreter: A pickle machine that describes instead of doing: imports, calls and sets nothing
opcodes: Numbers of the pickle opcodes, protocols 0 to 5 (Lib/pickletools.py of CPython is the reference)
stand_ins: What a pickle describes, as inert values: names are kept as names, calls as notes, nothing is made
torch_calls: The few calls a checkpoint's pickle makes, carried out on descriptions instead of objects
allowlist: Which names a checkpoint may mention, which it may call, and what others mean
"""
