"""Tell somebody who is not looking: by any URL that Apprise knows, a web hook, a command; `nantui notify`.

Files, in reading order:

outbox: Whom to tell, and what waits to be told to each: files of the user's own, which outlive every process
delivery: What is told, and how it is handed over: what came back is said without a word of the URL
__main__: `python -m nantui.supervisor.notify`: keeps what is to be told, and sends until nothing waits
"""
