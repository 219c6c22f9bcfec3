"""The cockpit: the only room that imports textual. It reads the run directory and leaves commands.

In reading order: app, actions, context, watchers, screens/, dialogs/, widgets/, charts/, model/, theme,
glyphs, styled_text, format, textual_internals, preferences.
"""
