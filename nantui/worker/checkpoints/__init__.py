"""What the training saves: at an epoch's end, when stopped, and with other settings.

Files, in reading order:

epoch_end: The end of an epoch: judge the validation, save or refuse to, and agree with the other ranks
save: What a training saves, so that no save can tear: into a staging folder, checked, then renamed
optimizer_state: The optimizer that a resume will build, with as much old state as still fits
rebase: Write changed settings into a checkpoint, so that a resume really uses them
"""
