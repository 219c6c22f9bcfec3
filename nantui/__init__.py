"""nantui: a cockpit and an autopilot for Ultralytics training, in a terminal.

Importing this package costs nothing: no module here pulls in torch, ultralytics, textual, numpy or
pandas. The rooms below are described in docs/architecture.md.
"""

__version__ = "0.1.0"
