"""Which version this is; apart from the package itself, which hands out what rooms below must not know."""

__version__ = "0.1.0"
