"""What each command does, one module a command or for a few of one kind; nothing heavy is imported here.

In reading order: acting, check, cockpit, completion, common, curves, demo, diagnose, doctor, join, labels,
mcp, notify, presets, queue, service, starting, watching, web.
"""
