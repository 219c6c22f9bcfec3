"""Tell somebody who is not looking: by any URL that Apprise knows, a web hook, a command; `nantui notify`.

In reading order: outbox, delivery, __main__.
"""
