"""Kept for one release: the name by which scripts begun under the version before import `attach`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("nantui.worker.script.attach")
