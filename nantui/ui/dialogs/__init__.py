"""One dialog a file: what is asked on top of a screen.

In reading order: base, confirm, detail, help, jump, choose, recover.
"""
