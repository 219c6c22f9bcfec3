"""What the training saves: at an epoch's end, when stopped, and with other settings.

In reading order: epoch_end, save, optimizer_state, rebase.
"""
