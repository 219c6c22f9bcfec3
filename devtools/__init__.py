"""Pictures and pages made from the app and the code itself: for the documentation, not for users.

Files, in reading order:

screenshots: Write pictures of every screen from the real app, on a recorded real run
gallery: Every screen in every size, from the real app with real keys on recorded runs
recorded_run: A recorded real run, the same everywhere: what screenshots and snapshot tests show
screen_svg: The screen as an SVG of our own: every character in its cell, braille as dots
moving_picture: A tour of the cockpit in half a minute, as one SVG that moves by itself
keys_page: docs/keys.md, made from the bindings themselves; a test keeps the file and the bindings together
reference_pages: docs/commands.md and docs/settings.md, made from the code itself
man_page: docs/nantui.1, the manual page, made from the same parsers
"""
