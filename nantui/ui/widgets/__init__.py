"""One widget a file. A widget is given a snapshot and draws lines; it reads nothing itself."""
