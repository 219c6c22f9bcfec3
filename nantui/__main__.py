"""`python -m nantui` is the command `nantui`."""

from nantui.cli import main

raise SystemExit(main())
