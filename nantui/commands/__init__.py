"""What each command of the command line does, one module a command; nothing heavy is imported here."""
