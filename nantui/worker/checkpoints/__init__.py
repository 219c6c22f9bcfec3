"""What the training saves: at an epoch's end, when stopped, and with other settings.

Files, in reading order:

epoch_end: The end of an epoch: check the validation, save or refuse to, agree with other ranks
save: Saves that cannot tear: Ultralytics' own `save_model` into a staging folder, then rename
optimizer_state: The optimizer that a resume will build, with as much old state as still fits
rebase: Write changed settings into a checkpoint, so that a resume really uses them
"""
