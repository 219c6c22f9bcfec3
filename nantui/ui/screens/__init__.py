"""One screen or dialog a file. Importing this package imports none of them: each comes when it is opened."""
